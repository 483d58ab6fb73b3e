"""Confidence intervals by the bootstrap over images.

A bootstrap sample draws as many images as there are, with replacement; a metric's interval holds the
middle 95% of its values over many samples (Efron & Tibshirani 1993, chapter 13). An image drawn k times
gets the weight k, so nothing is matched again: sums are weighted, and COCO's precision is accumulated
with weights.

Nuclei in one image are not independent, so images are drawn, not nuclei. Near-duplicate images are not
independent either: with ``groups``, whole groups are drawn.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_json
from nucleus_course.evaluation.coco import (
    COCO_MAX_DETECTIONS,
    MAX_DETECTIONS,
    PrecisionTable,
    average_precisions,
)
from nucleus_course.evaluation.metrics import COCO_KEYS, KEYS, values_from_sums


def draw_weights(images, replicates, seed=0, groups=None):
    """How often each image was drawn.

    Args:
        images: how many there are.
        groups: (images,) group numbers, to draw whole groups. None draws images.

    Returns:
        (replicates, images) int64. Without groups every row sums to ``images``.

    >>> draw_weights(5, replicates=3).sum(axis=1)
    array([5, 5, 5])
    """
    generator = np.random.default_rng(seed)
    if groups is None:
        return generator.multinomial(images, np.full(images, 1.0 / images), size=replicates)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = member.max() + 1
    return generator.multinomial(count, np.full(count, 1.0 / count), size=replicates)[:, member]


def values_of(scores, weights=None):
    """All metrics of weighted images.

    Args:
        scores: list of :class:`~nucleus_course.evaluation.scoring.ImageScore`.
        weights: (R, images), or None for every image once.

    Returns:
        {key: (R,) float64 in percent}, NaN where undefined; without weights R is 1.
    """
    weights = np.ones((1, len(scores))) if weights is None else np.asarray(weights, np.float64)
    values = values_from_sums(weights @ np.stack([s.sums for s in scores]))
    matches = [s.matches for s in scores]
    full = _coco(PrecisionTable(matches, MAX_DETECTIONS), weights)
    capped = full
    if any(len(m.scores) > COCO_MAX_DETECTIONS for m in matches):
        capped = _coco(PrecisionTable(matches, COCO_MAX_DETECTIONS), weights)
    values.update(zip(COCO_KEYS, (full[:, 0], full[:, 1], full[:, 2], capped[:, 0])))
    return {key: values[key] for key in KEYS}


def _coco(table, weights):
    return 100.0 * np.array([average_precisions(table.precision(w)) for w in weights])


def percentile_interval(values, level=0.95):
    """(low, high) around the middle ``level`` of the values; NaNs are left out, None if none is left.

    >>> percentile_interval([0, 1, 2, 3, 4, np.nan], level=0.5)
    (1.0, 3.0)
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def bootstrap_intervals(scores, replicates=1000, seed=0, level=0.95, groups=None):
    """{key: (low, high) in percent, or None} for every metric, over images (or groups of them)."""
    weights = draw_weights(len(scores), replicates, seed, groups)
    return {key: percentile_interval(v, level) for key, v in values_of(scores, weights).items()}


@dataclass
class Comparison:
    """Two models on the same images.

    Attributes:
        first, second: their names.
        metrics: {key: {"first", "second", "difference" (second - first), "low", "high", "share"}}; low and high
            bound the difference, ``share`` is the share of samples in which the second is better (ties count
            half). None if undefined.
        images, replicates, seed, level: of the bootstrap.
        warnings: texts.
    """

    first: str
    second: str
    metrics: dict
    images: int
    replicates: int
    seed: int
    level: float
    warnings: list

    def save(self, path):
        """Write as JSON, atomically."""
        write_json(path, dict(vars(self)))

    def table(self):
        """A rich table that fits 80 columns."""
        from nucleus_course.evaluation.tables import comparison_of_two

        return comparison_of_two(self)


def compare(
    dataset,
    first,
    second,
    *,
    replicates=1000,
    seed=0,
    level=0.95,
    groups=None,
    names=None,
    progress=False,
):
    """Paired bootstrap: is the second model better than the first on these images?

    Both are resampled with the same images, so the difficulty of an image cancels.

    Args:
        first, second: :class:`~nucleus_course.prediction.interchange.Predictions`, each at its own operating point, or
            reports fresh from ``evaluate`` on this data set.
        groups: {image id: group} or (images,) groups that are drawn whole, e.g. ``dataset.groups``.
        names: two names; None takes those of the predictions.

    Returns:
        :class:`Comparison`.

    Raises:
        UserError: if the two cover different images, or a report was loaded from a file (it holds no matches).
    """
    from nucleus_course.evaluation.report import Report, evaluate

    reports = [
        given if isinstance(given, Report) else evaluate(dataset, given, progress=progress)
        for given in (first, second)
    ]
    if any(report.scores is None for report in reports):
        raise UserError(
            "a report loaded from a file cannot be compared: evaluate its predictions again"
        )
    ids = [[s.image_id for s in report.scores] for report in reports]
    if ids[0] != ids[1] or ids[0] != list(dataset.ids):
        raise UserError("the two reports cover different images: evaluate both on the same split")
    weights = draw_weights(len(ids[0]), replicates, seed, in_order(groups, ids[0]))
    sampled = [values_of(report.scores, weights) for report in reports]
    metrics = {}
    for key in KEYS:
        a, b = (report.metrics[key] for report in reports)
        differences = sampled[1][key] - sampled[0][key]
        low, high = percentile_interval(differences, level) or (None, None)
        known = differences[~np.isnan(differences)]
        share = float(np.mean((known > 0) + 0.5 * (known == 0))) if known.size else None
        difference = None if a is None or b is None else b - a
        interval = {"low": low, "high": high, "share": share}
        metrics[key] = {"first": a, "second": b, "difference": difference, **interval}
    names = names or [report.name for report in reports]
    warnings = [f"{name}: {text}" for name, r in zip(names, reports) for text in r.warnings]
    return Comparison(*names, metrics, len(ids[0]), replicates, seed, level, warnings)


def in_order(groups, ids):
    """Groups in the order of ``ids``, from {id: group}; a list is returned as it is."""
    return [groups[i] for i in ids] if isinstance(groups, dict) else groups
