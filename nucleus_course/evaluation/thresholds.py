"""Choose the operating point on a validation split.

Where detections overlap, the higher score keeps the pixel, so a lower threshold adds detections and
changes no others. Each image is therefore compared with its truth once, without a threshold, and every
score threshold and minimum area selects rows of that table: a hundred thresholds cost little more than one.

NMS IoU and mask threshold change the detections themselves; for those the caller gives a function that
predicts.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_json
from nucleus_course._util.progress import track
from nucleus_course.config import Thresholds
from nucleus_course.evaluation.metrics import COLUMNS, POINT_KEYS, image_sums, values_from_sums
from nucleus_course.evaluation.scoring import align, compare_image

SCORES = tuple(np.round(np.arange(0.05, 0.96, 0.01), 2).tolist())
_NEEDS = {  # metrics that need the costly columns
    "mean_mask_iou": ("paired_iou", "good_pairs", "good_iou"),
    "matched_mask_iou": ("paired_iou", "good_pairs", "good_iou"),
    "aji": ("aji_shared", "aji_union"),
}


class OperatingPoints:
    """Predictions compared with the truth once, for every score threshold and minimum area.

    Args:
        dataset, predictions: as for ``evaluate``; the predictions should hold detections of low scores.

    Raises:
        PredictionsError: if predictions do not fit the data set.
    """

    def __init__(self, dataset, predictions, progress=False):
        pairs, self.warnings = align(dataset, predictions)
        self._images = []
        for image_id, image in track(pairs, "comparing", show=progress):
            compared = compare_image(image_id, dataset[image_id], image)
            overlap, scores = compared.overlap, compared.image.scores
            # The matrix ends with the last detection that kept a pixel.
            by_score = np.argsort(-scores[: len(overlap) - 1], kind="stable")
            rows = overlap[1:][by_score]
            self._images.append((overlap.sum(0), rows, scores[by_score], rows.sum(1)))

    @property
    def scores(self):
        """(N,) float64, scores of all detections that keep a pixel."""
        return np.concatenate(
            [scores[areas > 0] for _, _, scores, areas in self._images] + [np.zeros(0)]
        )

    def values(self, metric, scores=SCORES, min_areas=(0,)):
        """A metric at every combination: (len(scores), len(min_areas)) float64, percent.

        Raises:
            UserError: for a metric that does not depend on the operating point.
        """
        check_metrics(metric)
        scores = np.asarray(scores, np.float64)
        columns = set(COLUMNS[:3]) | set(_NEEDS.get(metric, ()))
        total = np.zeros((scores.size, len(min_areas), len(COLUMNS)))
        for truth, rows, own, areas in self._images:
            above = np.searchsorted(-own, -scores, side="right")  # how many reach each threshold
            for a, smallest in enumerate(min_areas):
                large = areas >= max(1, smallest)
                kept = np.append(0, np.cumsum(large))[above]
                rows_left = rows[large]
                done = {}
                for t, count in enumerate(kept.tolist()):
                    if count not in done:
                        chosen = rows_left[:count]
                        table = np.concatenate([(truth - chosen.sum(0))[None], chosen])
                        done[count] = image_sums(table, columns=columns)
                    total[t, a] += done[count]
        return values_from_sums(total)[metric]


def check_metrics(*names):
    """Raise a UserError for a metric that does not depend on the operating point."""
    for metric in names:
        if metric not in POINT_KEYS:
            raise UserError(
                f"'{metric}' has no operating point to choose: use one of {', '.join(POINT_KEYS)}"
            )


@dataclass
class ThresholdChoice:
    """The best thresholds, and everything that was tried.

    Attributes:
        thresholds: :class:`~nucleus_course.config.Thresholds`, with the metric, split, data set and value reached.
        tried: list of {"score", "min_area", "nms_iou", "mask", "value"}, percent; for each set of predictions the
            score curve at the best minimum area.
        warnings: texts.
    """

    thresholds: object
    tried: list = field(default_factory=list)
    warnings: list = field(default_factory=list)

    def save(self, path):
        """Write thresholds.json (into ``path``, a file or a model folder)."""
        path = Path(path)
        path = path / "thresholds.json" if path.is_dir() else path
        write_json(path, dataclasses.asdict(self.thresholds))


def choose_thresholds(
    dataset,
    predictions=None,
    *,
    metric="dsb_score",
    at_least=None,
    predict=None,
    nms_ious=(),
    masks=(),
    start=None,
    scores=SCORES,
    min_areas=(0, 5, 10, 20, 30, 50),
    progress=False,
):
    """Thresholds that give the best value of a metric on a data set.

    Score threshold and minimum area are searched together, for every set of predictions. NMS IoU and mask
    threshold are searched one after the other, each from the best so far, because every candidate needs a prediction
    of the whole split. Among equal score thresholds the middle one is taken; among minimum areas the smallest.

    Args:
        dataset: as for ``evaluate``.
        predictions: made with ``start``'s NMS IoU and mask threshold, with low scores kept; not needed with ``predict``.
        metric: one that depends on the operating point: dsb_score, f1_50, f1_70, pq, aji, mean_mask_iou, ...
        at_least: such as {"mean_mask_iou": 78.0}: only operating points that reach these values count.
        predict: ``predict(nms_iou, mask_threshold) -> Predictions``; needed for ``nms_ious`` and ``masks``.
        start: :class:`~nucleus_course.config.Thresholds` to start from.

    Returns:
        :class:`ThresholdChoice`.

    Raises:
        UserError: for a metric without an operating point, neither predictions nor ``predict``, or values in
            ``at_least`` that no operating point reaches.
    """
    check_metrics(metric, *(at_least or {}))
    start = start or Thresholds()
    if predict is None and (predictions is None or len(nms_ious) or len(masks)):
        raise UserError(
            "give predictions, or a function predict(nms_iou, mask_threshold) to search NMS IoU and mask threshold"
        )
    tried, warnings, known = [], [], {}

    def best_of(nms_iou, mask):
        if (nms_iou, mask) not in known:
            if predictions is not None and (nms_iou, mask) == (start.nms_iou, start.mask):
                found = predictions
            else:
                found = predict(nms_iou, mask)
            points = OperatingPoints(dataset, found, progress)
            warnings.extend(w for w in points.warnings if w not in warnings)
            values = points.values(metric, scores, min_areas)
            for name, least in (at_least or {}).items():
                values = np.where(points.values(name, scores, min_areas) >= least, values, np.nan)
            area = int(np.argmax(np.nanmax(np.nan_to_num(values, nan=-1.0), axis=0)))
            curve, smallest = values[:, area], int(min_areas[area])
            at = _middle_of_best(curve)
            for score, value in zip(scores, curve.tolist()):
                row = {
                    "score": float(score),
                    "min_area": smallest,
                    "nms_iou": nms_iou,
                    "mask": mask,
                }
                tried.append({**row, "value": None if np.isnan(value) else value})
            value = float(np.nan_to_num(curve[at], nan=-1.0))
            known[nms_iou, mask] = value, float(scores[at]), smallest
        return known[nms_iou, mask]

    nms_iou, mask = start.nms_iou, start.mask
    best_of(nms_iou, mask)
    for candidates, place in ((nms_ious, 0), (masks, 1)):
        options = [(c, mask) if place == 0 else (nms_iou, c) for c in candidates]
        nms_iou, mask = max([(nms_iou, mask), *options], key=lambda pair: best_of(*pair)[0])
    value, score, min_area = best_of(nms_iou, mask)
    if at_least and value < 0:
        wanted = " and ".join(f"{name} of {least:g}" for name, least in at_least.items())
        raise UserError(f"no operating point reaches {wanted}: choose a lower value")
    chosen = dataclasses.replace(
        start, score=score, nms_iou=nms_iou, mask=mask, min_area=min_area, metric=metric, value=max(value, 0.0),
        split=str(getattr(dataset, "split", "")), dataset=str(getattr(dataset, "name", "")),
    )  # fmt: skip
    return ThresholdChoice(chosen, tried, warnings)


def _middle_of_best(values):
    """Index of the largest value; in a run of equal ones the middle, farthest from where it falls."""
    values = np.nan_to_num(values, nan=-1.0)
    first = int(np.argmax(values))
    last = first
    while last + 1 < len(values) and values[last + 1] >= values[first] - 1e-9:
        last += 1
    return (first + last) // 2
