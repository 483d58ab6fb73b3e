"""Where a model fails: the class and the features of every detection and nucleus.

Objects are classified at the operating point (:mod:`nucleus_course.evaluation.errors.taxonomy` has the rules), so the
matched ones are the true positives of ``f1_50``, the other detections its false positives and the other nuclei its
false negatives. What the errors cost in average precision is computed from all detections
(:mod:`nucleus_course.evaluation.errors.costs`).
"""

from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.files import write_json
from nucleus_course._util.progress import track
from nucleus_course.evaluation.calibration import reliability
from nucleus_course.evaluation.errors.costs import Classified, error_costs
from nucleus_course.evaluation.errors.features import BINS, bin_of, object_features
from nucleus_course.evaluation.errors.taxonomy import CLASSES, MATCH_IOU, MATCHED, classify
from nucleus_course.evaluation.matching import iou_from_overlap, iou_from_shared, pairs_above
from nucleus_course.evaluation.report import Report, report_of
from nucleus_course.evaluation.scoring import (
    align,
    cautions,
    compare_image,
    operating_point,
    score_image,
)
from nucleus_course.geometry.rle import boxes_from_rles
from nucleus_course.prediction.interchange import Predictions

BREAKDOWNS = ("type", *BINS)


@dataclass
class ErrorAnalysis:
    """The errors of one model on one set of images.

    Attributes:
        report: the :class:`~nucleus_course.evaluation.report.Report` on the same matches.
        nuclei, detections: columns of equal length, one row per object: ``image`` (id), ``type``, ``label`` (in the truth
            with labels 1..n; in ``label_image`` of the predictions at the operating point), ``class`` (index into
            ``CLASSES``), ``iou`` (with its partner; without one, the largest with any object), ``score`` (a nucleus has
            its partner's, or NaN), ``area``, ``box``, and the features ``size``, ``crowding``, ``edge``, ``contrast`` of
            :mod:`~nucleus_course.evaluation.errors.features`.
        costs: see :func:`~nucleus_course.evaluation.errors.costs.error_costs`.
        calibration: see :func:`~nucleus_course.evaluation.calibration.reliability`; None if scores are not probabilities.
        suppressed: detections above the threshold that kept too few pixels to count; in no class.
        classified: the input of the costs, one :class:`~nucleus_course.evaluation.errors.costs.Classified` per image.
    """

    report: Report
    nuclei: dict
    detections: dict
    costs: dict
    calibration: dict
    suppressed: int = 0
    shapes: dict = field(default_factory=dict, repr=False)
    classified: list = field(default_factory=list, repr=False)

    @property
    def counts(self):
        """{class: {"nuclei": n, "detections": n}}, all classes."""
        n, d = (
            np.bincount(t["class"], minlength=len(CLASSES)) for t in (self.nuclei, self.detections)
        )
        return {
            name: {"nuclei": int(n[i]), "detections": int(d[i])} for i, name in enumerate(CLASSES)
        }

    @property
    def totals(self):
        """{"tp", "fp", "fn"}: the matched, the other detections, the other nuclei."""
        tp = int((self.detections["class"] == MATCHED).sum())
        return {
            "tp": tp,
            "fp": len(self.detections["class"]) - tp,
            "fn": len(self.nuclei["class"]) - tp,
        }

    def breakdown(self, by):
        """Classes by a property: {"nuclei": {bin: {class: n}}, "detections": {bin: {class: n}}}.

        Args:
            by: "type" (of image), "size" (equivalent diameter), "crowding" (gap to the nearest neighbour), "edge"
                (distance to the border) or "contrast". Detections are measured themselves, not their nuclei.
        """
        result = {}
        for kind, table in (("nuclei", self.nuclei), ("detections", self.detections)):
            if by == "type":
                bins, names = (
                    table["type"],
                    sorted(set(self.nuclei["type"]) | set(self.detections["type"])),
                )
            elif by in BINS:
                bins, names = bin_of(by, table[by]), [*BINS[by][1], "unknown"]
            else:
                raise ValueError(f"no breakdown by '{by}': choose one of {', '.join(BREAKDOWNS)}")
            rows = {}
            for name in names:
                classes = np.bincount(table["class"][bins == name], minlength=len(CLASSES))
                if name != "unknown" or classes.any():
                    rows[name] = {c: int(classes[i]) for i, c in enumerate(CLASSES)}
            result[kind] = rows
        return result

    def worst_images(self, count=10, metric="dsb_score"):
        """The images with the lowest values: [{"image", "type", "value", "tp", "fp", "fn"}], worst first."""
        known = [
            (row[metric], i) for i, row in self.report.images.items() if row[metric] is not None
        ]
        rows = self.report.counts["per_image"]
        return [
            {"image": i, "value": value, **{k: rows[i][k] for k in ("type", "tp", "fp", "fn")}}
            for value, i in sorted(known)[:count]
        ]

    def worst_nuclei(self, count=10, margin=16):
        """Nuclei without a partner, by rising IoU and then by falling area; rows with a crop window."""
        lost = np.flatnonzero(self.nuclei["class"] != MATCHED)
        order = lost[
            np.lexsort([-self.nuclei["area"][lost], np.round(self.nuclei["iou"][lost], 3)])
        ]
        return [self._row(self.nuclei, i, margin) for i in order[:count]]

    def surest_mistakes(self, count=10, margin=16):
        """Detections without a partner, best score first; rows with a crop window."""
        wrong = np.flatnonzero(self.detections["class"] != MATCHED)
        order = wrong[np.argsort(-self.detections["score"][wrong], kind="stable")]
        return [self._row(self.detections, i, margin) for i in order[:count]]

    def _row(self, table, i, margin):
        """One object as a plain dict; ``window`` is (top, left, bottom, right), pixels, within the image."""
        height, width = self.shapes[table["image"][i]]
        top, left, bottom, right = (int(v) for v in table["box"][i])
        window = (
            max(0, top - margin),
            max(0, left - margin),
            min(height, bottom + margin),
            min(width, right + margin),
        )
        score = float(table["score"][i])
        return {
            "image": str(table["image"][i]),
            "label": int(table["label"][i]),
            "class": CLASSES[table["class"][i]],
            "iou": float(table["iou"][i]),
            "score": None if np.isnan(score) else score,
            "area": int(table["area"][i]),
            "window": window,
        }

    def to_dict(self):
        """Everything but the single objects, as plain JSON types."""
        return {
            "name": self.report.name, "dataset": self.report.dataset, "split": self.report.split,
            "operating_point": self.report.operating_point, "counts": self.counts, "totals": self.totals,
            "suppressed": self.suppressed, "breakdowns": {by: self.breakdown(by) for by in BREAKDOWNS},
            "costs": self.costs, "calibration": self.calibration, "worst_images": self.worst_images(),
            "worst_nuclei": self.worst_nuclei(), "surest_mistakes": self.surest_mistakes(),
        }  # fmt: skip

    def save(self, path):
        """Write :meth:`to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())

    def table(self):
        """Classes, their counts and costs, as a rich table that fits 80 columns."""
        from nucleus_course.evaluation.tables import errors_table

        return errors_table(self)

    def breakdown_table(self, by):
        """One breakdown as a rich table that fits 80 columns."""
        from nucleus_course.evaluation.tables import breakdown_table

        return breakdown_table(self, by)


def analyse_errors(dataset, predictions, *, score_threshold=None, min_area=None, progress=True):
    """Find out where predictions fail.

    Args:
        dataset: as for ``evaluate``; the contrast needs a record's ``image`` ((H, W, 3) uint8).
        predictions, score_threshold, min_area: as for ``evaluate``.

    Returns:
        :class:`ErrorAnalysis`.

    Raises:
        PredictionsError: if predictions do not fit the data set.
    """
    if not isinstance(predictions, Predictions):
        predictions = Predictions.load(predictions)
    point, warnings = operating_point(predictions, score_threshold, min_area)
    threshold, smallest = point["score_threshold"], point["min_area"]
    pairs, more = align(dataset, predictions)
    scores, nuclei, detections, classified, shapes, suppressed = [], [], [], [], {}, 0
    for image_id, image in track(pairs, "analysing errors", show=progress):
        record = dataset[image_id]
        compared = compare_image(image_id, record, image, threshold, smallest)
        score = score_image(image_id, record, compared)
        *tables, costs = _analyse_image(getattr(record, "image", None), compared, score)
        for table, rows in zip((nuclei, detections), tables):
            count = len(rows["label"])
            table.append({"image": [image_id] * count, "type": [score.type] * count, **rows})
        classified.append(costs)
        shapes[image_id] = compared.labels.shape
        suppressed += int((compared.image.scores >= threshold).sum()) - len(tables[1]["label"])
        scores.append(score)
    report = report_of(dataset, predictions, scores, point, warnings + more + cautions(scores))
    values = np.concatenate([s.matches.scores for s in scores])
    in_range = values.min(initial=0) >= 0 and values.max(initial=1) <= 1
    return ErrorAnalysis(
        report,
        _joined(nuclei),
        _joined(detections),
        error_costs(classified),
        reliability(scores) if in_range else None,
        suppressed,
        shapes,
        classified,
    )


def _joined(tables):
    joined = {}
    for name in tables[0]:
        kind = object if name in ("image", "type") else None
        joined[name] = np.concatenate([np.asarray(t[name], dtype=kind) for t in tables])
    return joined


def _analyse_image(picture, compared, score):
    """(rows of the nuclei, rows of the detections at the operating point, :class:`Classified` for the costs)."""
    image, labels, shared = compared.image, compared.labels, compared.shared
    truth = object_features(labels, picture)
    areas = image.runs().areas
    painted = image.label_image(None)
    left = np.bincount(painted.ravel(), minlength=len(image) + 1)[1:]
    lost = (areas - left) / np.maximum(areas, 1)  # to detections with better scores
    boxes = boxes_from_rles(image.rles)
    edge = (boxes[:, :2] <= 0).any(1) | (boxes[:, 2:] >= labels.shape).any(1)
    edge &= areas > 0

    def classes(of, match):
        lying = truth["edge"] == 0
        return classify(shared[of], areas[of], truth["area"], match, lost[of], edge[of], lying)

    rows = object_features(compared.point, picture)
    here = rows["label"] - 1  # indices of the detections
    iou = iou_from_overlap(compared.overlap)[here]
    match = np.full(here.size, -1)
    at, partner = pairs_above(iou, MATCH_IOU)
    match[at] = partner
    rows["class"], truth["class"] = classes(here, match)
    raw = iou_from_shared(shared[here], areas[here], truth["area"])
    rows["iou"], truth["iou"] = raw.max(1, initial=0), raw.max(0, initial=0)
    rows["score"], truth["score"] = image.scores[here], np.full(truth["label"].size, np.nan)
    rows["iou"][at], truth["iou"][partner] = iou[at, partner], iou[at, partner]
    truth["score"][partner] = image.scores[here][at]
    matches = score.matches
    return truth, rows, Classified(matches, *classes(matches.order, matches.nucleus[0]))
