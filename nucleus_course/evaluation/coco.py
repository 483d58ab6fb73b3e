"""COCO's average precision, from the matches of each image.

An image is matched once (:class:`CocoMatches`). Precision can then be accumulated many times: for a
subset of images, for a bootstrap sample (an image counts as often as it was drawn), for a cap other than
100. With every image counted once, the result equals that of ``pycocotools``, as the tests check.

Lin et al. 2014, Microsoft COCO; https://cocodataset.org/#detection-eval.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course.evaluation.matching import score_order_match

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 1000  # an image of the data set holds up to 375 nuclei
COCO_MAX_DETECTIONS = 100


@dataclass(frozen=True)
class CocoMatches:
    """What COCO's matching found in one image.

    Attributes:
        nuclei: how many there are.
        scores: (D,) float64, in falling order; D is at most ``MAX_DETECTIONS``.
        nucleus: (10, D) int64, for each IoU threshold the nucleus that a detection matched, or -1.
        order: (D,) int64, the index of each detection in the predictions.
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

    >>> found = match_image([[0.9], [0.7]], [0.3, 0.8])
    >>> found.order, found.nucleus[0], found.nucleus[5]
    (array([1, 0]), array([ 0, -1]), array([-1,  0]))
    """
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind="stable")[:max_detections]
    iou = np.asarray(iou, np.float64)[order]
    match = score_order_match(iou, IOU_THRESHOLDS)
    return CocoMatches(iou.shape[1], scores[order], match, order, iou)


class PrecisionTable:
    """Detections of many images in order of score, to accumulate precision from.

    Args:
        matches: list of :class:`CocoMatches`, one for each image, in the order of the data set (which
            breaks ties between images, as in COCO).
        max_detections: cap for each image.
    """

    def __init__(self, matches, max_detections=MAX_DETECTIONS):
        sizes = [min(len(m.scores), max_detections) for m in matches]
        scores = np.concatenate([m.scores[:n] for m, n in zip(matches, sizes)] + [np.zeros(0)])
        hits = [m.nucleus[:, :n] >= 0 for m, n in zip(matches, sizes)]
        hits = np.concatenate(hits + [np.zeros((IOU_THRESHOLDS.size, 0), bool)], axis=1)
        order = np.argsort(-scores, kind="stable")
        self.scores = scores[order]
        self.hits = hits[:, order]
        self.image = np.repeat(np.arange(len(matches)), sizes)[order]
        self.nuclei = np.array([m.nuclei for m in matches], np.int64)

    def precision(self, weights=None):
        """Interpolated precision at the 101 recall points.

        Args:
            weights: (images,) how often each image counts; None counts each once.

        Returns:
            (10, 101) float64, a row for each IoU threshold; NaN without nuclei.
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
    """``(ap, ap50, ap75)`` as fractions from a (10, 101) precision table.

    >>> one_of_two = match_image([[1.0, 0.0]], [0.9])
    >>> [round(ap, 3) for ap in average_precisions(PrecisionTable([one_of_two]).precision())]
    [0.505, 0.505, 0.505]
    """
    by_threshold = precision.mean(axis=1)
    return float(precision.mean()), float(by_threshold[0]), float(by_threshold[5])
