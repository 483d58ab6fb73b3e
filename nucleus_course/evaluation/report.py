"""``evaluate``: from a data set and predictions to a :class:`Report` with every metric."""

from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json, write_json
from nucleus_course.evaluation.bootstrap import bootstrap_intervals, in_order, values_of
from nucleus_course.evaluation.coco import RECALL_POINTS, PrecisionTable
from nucleus_course.evaluation.metrics import (
    DEFINITIONS_VERSION,
    IOU_THRESHOLDS,
    TP_COLUMNS,
    column,
    ratio,
)
from nucleus_course.evaluation.scoring import operating_point, score_images
from nucleus_course.prediction.interchange import Predictions


@dataclass
class Report:
    """Every metric of the protocol, of one model on one set of images; percent, None if undefined.

    Attributes:
        metrics: {key: value} over the data set.
        images: {image id: {key: value}}.
        types: {image type: {key: value}}, computed as if the images of a type were the whole data set.
        intervals: {key: (low, high)} of the bootstrap; empty if none were requested.
        bootstrap: {"replicates", "seed", "level", "grouped"} or empty.
        counts: {"images", "nuclei", "detections" (at the operating point), "candidates" (all)} and
            ``per_image`` {id: {"type", "nuclei", "detections", "tp", "fp", "fn"}} at IoU above 0.5.
        operating_point: {"score_threshold", "min_area", "source": "given", "predictions" or "none"}.
        curves: {"recall": [101], "precision": {IoU: [101]}, "f1": {IoU: value}}, fractions.
        name, dataset, split, synthetic: what was evaluated on what.
        warnings: what a reader of the numbers should know.
        scores: the matches behind the numbers, a list of
            :class:`~nucleus_course.evaluation.scoring.ImageScore`; None for a report loaded from a file.
    """

    metrics: dict
    images: dict
    types: dict
    intervals: dict = field(default_factory=dict)
    bootstrap: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)
    operating_point: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    name: str = "predictions"
    dataset: str = ""
    split: str = ""
    synthetic: bool = False
    definitions: int = DEFINITIONS_VERSION
    warnings: list = field(default_factory=list)
    scores: list = field(default=None, repr=False)

    def to_dict(self):
        """The contents of report.json: everything but ``scores``."""
        return {key: value for key, value in vars(self).items() if key != "scores"}

    def save(self, path):
        """Write report.json atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path):
        """Read a report.json.

        Raises:
            UserError: if there is none, or it is not a report.
        """
        document, parts = read_json(path), ("metrics", "images", "types")
        if not isinstance(document, dict) or not all(
            isinstance(document.get(k), dict) for k in parts
        ):
            raise UserError(f"{path}: not a report: metrics, images and types are expected")
        names = set(cls.__dataclass_fields__) - {"scores"}
        known = {k: v for k, v in document.items() if k in names}
        spans = known.get("intervals") or {}
        known["intervals"] = {k: None if v is None else tuple(v) for k, v in spans.items()}
        return cls(**known)

    def table(self):
        """The metrics as a rich table that fits 80 columns."""
        from nucleus_course.evaluation.tables import metrics_table

        return metrics_table(self)

    def types_table(self):
        """The metrics of each image type as a rich table that fits 80 columns."""
        from nucleus_course.evaluation.tables import types_table

        return types_table(self)


def evaluate(
    dataset,
    predictions,
    *,
    score_threshold=None,
    min_area=None,
    bootstrap=0,
    seed=0,
    level=0.95,
    groups=None,
    progress=True,
):
    """Score predictions with every metric of the protocol (docs/metrics.md has the definitions).

    Args:
        dataset: has ``ids`` and, for each id, a record with ``labels`` ((H, W) int32, 0 background) and ``type``.
        predictions: :class:`Predictions`, or a path for :meth:`Predictions.load`.
        score_threshold: operating point, the least score that counts; None takes that of the predictions.
        min_area: smallest detection in pixels, after overlaps are resolved; None takes that of the predictions (or 0).
        bootstrap: number of samples for the intervals; 1000 is usual, 0 gives no intervals.
        groups: {image id: group}, drawn whole in the bootstrap, e.g. ``dataset.groups`` for near-duplicates.

    Returns:
        :class:`Report`.

    Raises:
        PredictionsError: predictions that do not fit the data set; the message names the image.
    """
    if not isinstance(predictions, Predictions):
        predictions = Predictions.load(predictions)
    point, warnings = operating_point(predictions, score_threshold, min_area)
    scores, more = score_images(
        dataset, predictions, point["score_threshold"], point["min_area"], progress
    )
    report = report_of(dataset, predictions, scores, point, warnings + more)
    if bootstrap:
        order = in_order(groups, list(dataset.ids))
        report.intervals = bootstrap_intervals(scores, int(bootstrap), seed, level, order)
        how = {"replicates": int(bootstrap), "seed": seed, "level": level}
        report.bootstrap = {**how, "grouped": groups is not None}
    return report


def report_of(dataset, predictions, scores, point, warnings):
    """A :class:`Report` from matched images."""
    by_type = {}
    for score in scores:
        by_type.setdefault(score.type, []).append(score)
    return Report(
        metrics=plain_values(values_of(scores)),
        images={s.image_id: plain_values(values_of([s])) for s in scores},
        types={kind: plain_values(values_of(by_type[kind])) for kind in sorted(by_type)},
        counts=_counts(scores),
        operating_point=point,
        curves=_curves(scores),
        name=predictions.name,
        dataset=str(getattr(dataset, "name", "")),
        split=str(getattr(dataset, "split", "")),
        synthetic=bool(getattr(dataset, "synthetic", False)),
        warnings=warnings,
        scores=scores,
    )


def plain_values(values):
    """{key: (1,) array} as {key: float or None}."""
    return {key: None if np.isnan(v[0]) else float(v[0]) for key, v in values.items()}


def _counts(scores):
    rows = {}
    for s in scores:
        nuclei, found, tp = (int(column(s.sums, n)) for n in ("nuclei", "detections", "tp_50"))
        counts = {
            "nuclei": nuclei,
            "detections": found,
            "tp": tp,
            "fp": found - tp,
            "fn": nuclei - tp,
        }
        rows[s.image_id] = {"type": s.type, **counts}
    names = ("nuclei", "detections", "tp", "fp", "fn")
    total = {name: sum(row[name] for row in rows.values()) for name in names}
    candidates = sum(s.candidates for s in scores)
    return {"images": len(scores), **total, "candidates": candidates, "per_image": rows}


def _curves(scores):
    precision = PrecisionTable([s.matches for s in scores]).precision()
    total = np.sum([s.sums for s in scores], axis=0)
    f1 = ratio(
        2 * np.array([column(total, n) for n in TP_COLUMNS]),
        column(total, "nuclei") + column(total, "detections"),
    )
    names = [f"{t:.2f}" for t in IOU_THRESHOLDS]
    rows = {} if np.isnan(precision).any() else dict(zip(names, precision.tolist()))
    f1 = dict(zip(names, f1.tolist()))
    return {"recall": RECALL_POINTS.tolist(), "precision": rows, "f1": f1}
