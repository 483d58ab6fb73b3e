"""COCO's average precision, from the matches of each image.

``COCOeval`` does the matching; what it finds for an image is kept as a :class:`CocoMatches`. The precision is
accumulated from those here, because three things are wanted that ``COCOeval.accumulate`` and ``summarize`` do not
offer: AP of a subset of images, AP of a bootstrap sample (an image counts as often as it was drawn) without
matching again, and a cap other than 100, which ``summarize`` has written into it. With all images counted once the
result equals ``COCOeval.accumulate``'s to the last digit.

Lin et al. 2014, Microsoft COCO; https://cocodataset.org/#detection-eval.
"""

from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 1000  # an image of the data set holds up to 375 nuclei
COCO_MAX_DETECTIONS = 100
_ALL_AREAS = [0, 1e10]


@dataclass(frozen=True)
class CocoMatches:
    """What COCO's matching found in one image.

    Attributes:
        nuclei: how many there are.
        scores: (D,) float64, falling; D is at most ``MAX_DETECTIONS``.
        nucleus: (10, D) int64, for each IoU threshold the nucleus a detection matched, or -1.
        order: (D,) int64, where each detection stands in the predictions.
        iou: (D, nuclei) float64.
    """

    nuclei: int
    scores: np.ndarray
    nucleus: np.ndarray
    order: np.ndarray
    iou: np.ndarray


def match_image(iou, scores, max_detections=MAX_DETECTIONS):
    """Match one image's detections with its nuclei as COCO does, at the ten thresholds.

    Args:
        iou: (D, G) float64, in the order of ``scores``.
        scores: (D,) floats in any order; equal scores keep their order.

    Returns:
        :class:`CocoMatches` of the ``max_detections`` best.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="mergesort")[:max_detections]
    iou, scores = np.asarray(iou, np.float64)[order], np.asarray(scores, np.float64)[order]
    nuclei = iou.shape[1]
    match = np.full((IOU_THRESHOLDS.size, order.size), -1, np.int64)
    if iou.size:
        evaluator = COCOeval(iouType="segm")
        # the IoUs are known already, so the evaluator is handed its tables instead of two COCO objects; ids start
        # at 1 because it stores them where 0 means "no match"
        evaluator._gts[0, 1] = [
            {"id": g + 1, "area": 1, "ignore": 0, "iscrowd": 0} for g in range(nuclei)
        ]
        evaluator._dts[0, 1] = [
            {"id": d + 1, "area": 1, "score": s} for d, s in enumerate(scores.tolist())
        ]
        evaluator.ious[0, 1] = iou
        found = evaluator.evaluateImg(0, 1, _ALL_AREAS, max_detections)
        match = found["dtMatches"].astype(np.int64) - 1
    return CocoMatches(nuclei, scores, match, order, iou)


class PrecisionTable:
    """Detections of many images in order of score, ready to be accumulated again and again.

    Args:
        matches: list of :class:`CocoMatches`, one an image, in the order of the data set (ties between
            images are settled by it, as in COCO).
        max_detections: at most so many an image.
    """

    def __init__(self, matches, max_detections=MAX_DETECTIONS):
        sizes = [min(len(m.scores), max_detections) for m in matches]
        scores = np.concatenate([m.scores[:n] for m, n in zip(matches, sizes)] + [np.zeros(0)])
        hits = [m.nucleus[:, :n] >= 0 for m, n in zip(matches, sizes)]
        hits = np.concatenate(hits + [np.zeros((IOU_THRESHOLDS.size, 0), bool)], axis=1)
        order = np.argsort(-scores, kind="mergesort")
        self.scores = scores[order]
        self.hits = hits[:, order]
        self.image = np.repeat(np.arange(len(matches)), sizes)[order]
        self.nuclei = np.array([m.nuclei for m in matches], np.int64)

    def precision(self, weights=None):
        """Interpolated precision at the 101 recall points.

        Args:
            weights: (images,) how often each image counts; once where None.

        Returns:
            (10, 101) float64, a row for each IoU threshold; NaN where there is no nucleus.
        """
        weights = np.ones(self.nuclei.size) if weights is None else np.asarray(weights, np.float64)
        nuclei = float(weights @ self.nuclei)
        if nuclei == 0:
            return np.full((IOU_THRESHOLDS.size, RECALL_POINTS.size), np.nan)
        result = np.zeros((IOU_THRESHOLDS.size, RECALL_POINTS.size))
        if not self.scores.size:
            return result
        weight = weights[self.image]
        seen = np.cumsum(weight)
        for row, hit in zip(result, self.hits):
            true = np.cumsum(np.where(hit, weight, 0.0))
            recall = true / nuclei
            precision = true / (seen + np.spacing(1))
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.searchsorted(recall, RECALL_POINTS, side="left")
            reached = at < recall.size
            row[reached] = envelope[at[reached]]
        return result


def average_precisions(precision):
    """``(ap, ap50, ap75)`` as fractions from a (10, 101) precision table."""
    by_threshold = precision.mean(axis=1)
    return float(precision.mean()), float(by_threshold[0]), float(by_threshold[5])
