"""Overlap of masks, and who is matched with whom.

Everything here takes and returns plain arrays: rows are detections, columns are nuclei. Three matchings
are in use, because the field's metrics use three:

* :func:`score_order_match`, COCO's: detections in order of score, each takes the best nucleus still free.
* :func:`pairs_above`: disjoint masks and an IoU above one half leave no choice, so no order is needed
  (Kirillov et al. 2019, section 4.1).
* :func:`best_assignment`: one to one with the largest total IoU (the Hungarian method).
"""

import numpy as np
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment


def overlap_matrix(detected, truth):
    """Pixels that each pair of labels shares.

    Args:
        detected, truth: (H, W) integer label images with labels 0..D and 0..G.

    Returns:
        (D + 1, G + 1) int64; row 0 and column 0 are background. Sums over rows and columns are areas.

    Raises:
        ValueError: if the shapes differ.
    """
    if detected.shape != truth.shape:
        raise ValueError(f"label images of different shapes: {detected.shape} and {truth.shape}")
    rows = int(detected.max(initial=0)) + 1
    columns = int(truth.max(initial=0)) + 1
    pair = detected.astype(np.int64).ravel() * columns + truth.ravel()
    return np.bincount(pair, minlength=rows * columns).reshape(rows, columns)


def iou_from_overlap(overlap):
    """(D, G) float64 IoU from an :func:`overlap_matrix`; 0 for labels that hold no pixel."""
    shared = overlap[1:, 1:]
    union = overlap[1:].sum(1)[:, None] + overlap[:, 1:].sum(0)[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def mask_iou(detections, nuclei):
    """(D, G) float64 IoU of two lists of compressed RLEs, computed by pycocotools."""
    if not len(detections) or not len(nuclei):
        return np.zeros((len(detections), len(nuclei)))
    return np.asarray(coco_mask.iou(list(detections), list(nuclei), [0] * len(nuclei)))


def score_order_match(iou, thresholds):
    """COCO's matching, as ``COCOeval.evaluateImg`` does it.

    Args:
        iou: (D, G), detections in falling order of score.
        thresholds: (T,) IoU at or above which a pair matches.

    Returns:
        (T, D) int64: the nucleus that a detection matched, or -1. Of equal IoUs the last nucleus is taken.
    """
    iou = np.asarray(iou, np.float64)
    thresholds = np.minimum(np.atleast_1d(thresholds), 1 - 1e-10)
    match = np.full((thresholds.size, iou.shape[0]), -1, np.int64)
    if iou.size == 0:
        return match
    # only pairs above the lowest threshold can match: for masks these are one or two a detection
    rows, columns = np.nonzero(iou >= thresholds.min())
    bounds = np.searchsorted(rows, np.arange(iou.shape[0] + 1))
    candidates = []
    for d in range(iou.shape[0]):
        own = columns[bounds[d] : bounds[d + 1]][::-1]
        candidates.append([(iou[d, g], g) for g in own[np.argsort(-iou[d, own], kind="stable")]])
    for t, threshold in enumerate(thresholds):
        taken = set()
        for d, options in enumerate(candidates):
            for value, g in options:
                if value < threshold:
                    break
                if g not in taken:
                    taken.add(g)
                    match[t, d] = g
                    break
    return match


def pairs_above(iou, threshold):
    """Pairs (detections (P,), nuclei (P,)) with an IoU strictly above ``threshold``.

    One to one if masks do not overlap among detections nor among nuclei, and the threshold is 0.5 or more.

    Raises:
        ValueError: for a threshold below 0.5, where the pairs need not be one to one.
    """
    if threshold < 0.5:
        raise ValueError(f"pairs are one to one only from an IoU of 0.5 on, not {threshold}")
    return np.nonzero(np.asarray(iou) > threshold)


def best_assignment(iou):
    """One-to-one pairs (detections (P,), nuclei (P,)) of the largest total IoU; pairs that share nothing are left out."""
    iou = np.asarray(iou, np.float64)
    if iou.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    touch = iou[rows, columns] > 0
    return rows[touch], columns[touch]
