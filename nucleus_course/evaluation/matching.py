"""Overlap of masks, and which detection is matched with which nucleus.

Everything here takes and returns plain arrays: rows are detections, columns are nuclei. The field's metrics use
three kinds of matching:

* :func:`score_order_match`, COCO's: in order of score, each detection takes the best nucleus still free.
* :func:`pairs_above`: if masks do not overlap, pairs with an IoU above one half are unique, so no order is
  needed (Kirillov et al. 2019, section 4.1).
* :func:`best_assignment`: one to one with the largest total IoU (the Hungarian method).
"""

import numpy as np


def overlap_matrix(detected, truth):
    """Pixels that each pair of labels shares.

    Args:
        detected, truth: (H, W) integer label images with labels 0..D and 0..G.

    Returns:
        (D + 1, G + 1) int64; row 0 and column 0 are background. Sums over rows and columns are areas.

    Raises:
        ValueError: if the shapes differ.

    >>> overlap_matrix(np.array([[0, 1, 1, 2]]), np.array([[1, 1, 0, 2]]))
    array([[0, 1, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    if detected.shape != truth.shape:
        raise ValueError(f"label images of different shapes: {detected.shape} and {truth.shape}")
    sizes = (int(detected.max(initial=0)) + 1, int(truth.max(initial=0)) + 1)
    return _count_pairs(detected.ravel(), truth.ravel(), *sizes)


def _count_pairs(first, second, rows, columns):
    pair = first.astype(np.int64) * columns + second
    return np.bincount(pair, minlength=rows * columns).reshape(rows, columns)


def shared_pixels(runs, labels):
    """Pixels that each whole mask shares with each nucleus.

    Args:
        runs: :class:`~nucleus_course.geometry.rle.Runs` of N masks, which may overlap.
        labels: (H, W) integer label image with labels 0..G, 0 background.

    Returns:
        (N, G) int64.
    """
    mask, position = runs.pixels()
    nucleus = labels.T.ravel()[position]  # runs go down the columns
    return _count_pairs(mask, nucleus, runs.areas.size, int(labels.max(initial=0)) + 1)[:, 1:]


def iou_from_shared(shared, areas, nucleus_areas):
    """(D, G) float64 IoU from shared pixels (D, G) and areas (D,), (G,); 0 if both are empty.

    >>> iou_from_shared(np.array([[3]]), np.array([4]), np.array([5]))
    array([[0.5]])
    """
    union = np.asarray(areas)[:, None] + np.asarray(nucleus_areas)[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def iou_from_overlap(overlap):
    """(D, G) float64 IoU from an :func:`overlap_matrix`; 0 for labels without pixels."""
    return iou_from_shared(overlap[1:, 1:], overlap[1:].sum(1), overlap[:, 1:].sum(0))


def mask_iou(runs, labels):
    """(N, G) float64 IoU of whole masks, which may overlap, with the nuclei of a label image.

    Args:
        runs, labels: as :func:`shared_pixels` takes them; ``ImagePredictions.runs()`` gives the first.

    >>> from nucleus_course.geometry.rle import rle_from_labels, runs_from_rles
    >>> labels = np.array([[1, 1, 0, 2]])
    >>> rles = [rle_from_labels(mask.astype(int))[1][0] for mask in (labels == 1, labels < 2)]
    >>> mask_iou(runs_from_rles(rles, 1, 4), labels)
    array([[1.        , 0.        ],
           [0.66666667, 0.        ]])
    """
    nucleus_areas = np.bincount(labels.ravel(), minlength=1)[1:]
    return iou_from_shared(shared_pixels(runs, labels), runs.areas, nucleus_areas)


def score_order_match(iou, thresholds):
    """COCO's matching, as ``COCOeval.evaluateImg`` does it.

    Args:
        iou: (D, G), detections in falling order of score.
        thresholds: (T,) IoU at or above which a pair matches.

    Returns:
        (T, D) int64: the nucleus that a detection matched, or -1. Among equal IoUs the last nucleus is taken.

    >>> score_order_match([[0.6, 0.7], [0.0, 0.8], [0.9, 0.0]], [0.5, 0.75])
    array([[ 1, -1,  0],
           [-1,  1,  0]])
    """
    iou = np.asarray(iou, np.float64)
    thresholds = np.minimum(np.atleast_1d(thresholds), 1 - 1e-10)
    match = np.full((thresholds.size, iou.shape[0]), -1, np.int64)
    if iou.size == 0:
        return match
    # Only pairs above the lowest threshold can match: for masks, one or two per detection.
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

    The pairs are one to one if neither detections nor nuclei overlap among themselves.

    Raises:
        ValueError: a threshold below 0.5, which does not ensure that.

    >>> pairs_above([[0.5, 0.0], [0.0, 0.6]], 0.5)
    (array([1]), array([1]))
    """
    if threshold < 0.5:
        raise ValueError(f"pairs are one to one only at an IoU of 0.5 or more, not at {threshold}")
    return np.nonzero(np.asarray(iou) > threshold)


def best_assignment(iou):
    """One-to-one pairs (detections (P,), nuclei (P,)) with the largest total IoU; pairs with an IoU of 0 are left out.

    >>> best_assignment([[0.6, 0.5], [0.5, 0.0]])
    (array([0, 1]), array([1, 0]))
    """
    from scipy.optimize import linear_sum_assignment

    iou = np.asarray(iou, np.float64)
    if iou.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    touch = iou[rows, columns] > 0
    return rows[touch], columns[touch]
