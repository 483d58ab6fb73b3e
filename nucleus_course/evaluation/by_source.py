"""A report by source: how good a model is on each experiment, and on experiments it has not seen.

The largest experiments dominate a data set's mean. Here every source counts once: it is scored as a data set of its
own, and the mean is taken over sources. Intervals come from images drawn with replacement within each source (a
stratified bootstrap); a second model is scored on the same draws.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_json
from nucleus_course.evaluation.bootstrap import draw_weights, percentile_interval, values_of

SHOWN = ("coco_ap", "coco_ap50", "dsb_score", "mean_mask_iou", "f1_50")


@dataclass
class SourceTable:
    """Metrics by source, percent.

    Attributes:
        sources: {source: {"images": n, "met": bool, "first": {key: value}, "second": the same or None}}.
        means: {"unseen" | "seen" | "all": {key: {"first", "second", "difference", "low", "high"}}}, over the sources
            that the model has not seen, those that it has, and all, each counted once. ``difference`` is first minus
            second; ``low`` and ``high`` bound it, or with one model the mean itself.
        names: of the one or two models.
        replicates, seed, level: of the bootstrap.
        without_source: the number of images that no source is known for; they are left out.

    A metric that is undefined for a source (AP of images without nuclei) is None there and left out of the means.
    """

    sources: dict
    means: dict
    names: list
    replicates: int
    seed: int
    level: float = 0.95
    without_source: int = 0

    def save(self, path):
        """Write as JSON, atomically."""
        write_json(path, dict(vars(self)))

    def table(self):
        """A rich table that fits 80 columns."""
        from .tables import sources_table

        return sources_table(self)


def by_source(report, sources, met=(), other=None, *, replicates=1000, seed=0, level=0.95):
    """The :class:`SourceTable` of a report, and of a second model's on the same images.

    Args:
        report, other: from ``evaluate``, not from a file, because the matches are needed.
        sources: {image id: source}; images without one are left out and counted.
        met: the sources that the first model learned from.
        replicates: bootstrap samples.

    Raises:
        UserError: a report was loaded from a file, the two cover different images, or no image has a source.
    """
    reports = [report] + ([other] if other is not None else [])
    if any(r.scores is None for r in reports):
        raise UserError(
            "a report loaded from a file has no matches: evaluate its predictions again"
        )
    if len(reports) == 2 and [s.image_id for s in report.scores] != [
        s.image_id for s in other.scores
    ]:
        raise UserError("the two reports cover different images: evaluate both on the same split")
    places = {}
    for place, score in enumerate(report.scores):
        if score.image_id in sources:
            places.setdefault(sources[score.image_id], []).append(place)
    if not places:
        raise UserError(
            "none of these images has a known source: sources are known only for stage1_train"
        )
    rows, samples = {}, {}
    for number, name in enumerate(sorted(places)):
        own = [[r.scores[i] for i in places[name]] for r in reports]
        values = [
            {key: _defined(v[0]) for key, v in values_of(scores).items() if key in SHOWN}
            for scores in own
        ]
        rows[name] = {
            "images": len(own[0]),
            "met": name in met,
            "first": values[0],
            "second": values[1] if other else None,
        }
        if replicates:
            weights = draw_weights(len(own[0]), replicates, (seed, number))
            samples[name] = [values_of(scores, weights) for scores in own]
    means = {}
    for kind, names in _kinds(rows).items():
        means[kind] = {
            key: _mean(key, [rows[n] for n in names], [samples.get(n) for n in names], level)
            for key in SHOWN
        }
    left = len(report.scores) - sum(row["images"] for row in rows.values())
    return SourceTable(rows, means, [r.name for r in reports], replicates, seed, level, left)


def _defined(value):
    return None if np.isnan(value) else float(value)


def _kinds(rows):
    """{"unseen" | "seen" | "all": sources}, without empty ones."""
    unseen = [name for name, row in rows.items() if not row["met"]]
    seen = [name for name, row in rows.items() if row["met"]]
    return {
        kind: names
        for kind, names in (("unseen", unseen), ("seen", seen), ("all", list(rows)))
        if names
    }


def _mean(key, rows, samples, level):
    """One metric's mean over sources: both models', their difference and its interval."""
    models = ("first", "second") if rows[0]["second"] else ("first",)
    defined = [all(row[model][key] is not None for model in models) for row in rows]
    rows = [row for row, known in zip(rows, defined) if known]
    samples = [drawn for drawn, known in zip(samples, defined) if known]
    first, second = (
        float(np.mean([row[model][key] for row in rows])) if rows and model in models else None
        for model in ("first", "second")
    )
    low = high = None
    if samples and samples[0] is not None:
        drawn = [
            np.mean([s[model][key] for s in samples], axis=0) for model in range(len(samples[0]))
        ]
        low, high = percentile_interval(
            drawn[0] - drawn[1] if len(drawn) == 2 else drawn[0], level
        ) or (None, None)
    difference = None if first is None or second is None else first - second
    return {"first": first, "second": second, "difference": difference, "low": low, "high": high}
