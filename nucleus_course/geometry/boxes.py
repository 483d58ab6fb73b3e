"""Boxes: overlap, coding, clipping, growing, the level rule, and non-maximum suppression.

Boxes are float32 ``(y1, x1, y2, x2)`` in pixels with half-pixel centres: pixel ``(r, c)`` covers
``[r, r + 1) x [c, c + 1)``, so the box of one pixel has an area of 1. All functions take any leading
batch axes. NumPy arrays give NumPy arrays, without loading a backend; tensors give tensors, through
:mod:`keras.ops`, eagerly or compiled, on every backend.
"""

import math

import numpy as np

# A decoded box may not grow by more than this factor of its anchor (exp overflows otherwise).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def _namespace(*arrays):
    """NumPy if all are NumPy arrays, numbers or lists; :mod:`keras.ops` if one is a tensor."""
    if all(isinstance(a, (np.ndarray, np.generic, int, float, list, tuple)) for a in arrays):
        return np
    from keras import ops

    return ops


def _row(values, xp):
    """A few numbers as a float32 array of ``xp``."""
    return np.float32(values) if xp is np else xp.convert_to_tensor(values, "float32")


def area(boxes):
    """Area in square pixels: boxes (..., 4) -> (...,). Inverted boxes have area 0."""
    xp = _namespace(boxes)
    return xp.prod(xp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def iou_matrix(a, b):
    """Intersection over union of every box in ``a`` with every box in ``b``.

    Args:
        a: (..., N, 4) boxes (y1, x1, y2, x2), pixels.
        b: (..., M, 4) boxes, the same leading axes.

    Returns:
        (..., N, M) in [0, 1]; 0 if both boxes are empty.

    >>> iou_matrix(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[0.0, 1.0, 2.0, 3.0]])).round(3)
    array([[0.333]])
    """
    xp = _namespace(a, b)
    # One plane per coordinate: (..., N, 1) against (..., 1, M), without an (N, M, 4) tensor.
    ay1, ax1, ay2, ax2 = xp.split(a, 4, axis=-1)
    by1, bx1, by2, bx2 = xp.split(xp.swapaxes(b, -1, -2), 4, axis=-2)
    height = xp.maximum(xp.minimum(ay2, by2) - xp.maximum(ay1, by1), 0.0)
    width = xp.maximum(xp.minimum(ax2, bx2) - xp.maximum(ax1, bx1), 0.0)
    overlap = height * width
    union = area(a)[..., :, None] + area(b)[..., None, :] - overlap
    return overlap / xp.maximum(union, 1e-7)


def _centre_size(boxes):
    size = _namespace(boxes).maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
    return boxes[..., :2] + 0.5 * size, size


def encode(boxes, anchors, stds):
    """Deltas (dy, dx, log dh, log dw) / stds that move ``anchors`` onto ``boxes`` (R-CNN, appendix C).

    Args:
        boxes, anchors: (..., 4), pixels.
        stds: four numbers by which the deltas are divided, so that their variance is near 1.

    Returns:
        (..., 4), finite also for empty boxes.
    """
    xp = _namespace(boxes, anchors)
    centre, size = _centre_size(boxes)
    anchor_centre, anchor_size = _centre_size(anchors)
    shift = (centre - anchor_centre) / anchor_size
    return xp.concatenate([shift, xp.log(size / anchor_size)], axis=-1) / _row(stds, xp)


def decode(deltas, anchors, stds):
    """Inverse of :func:`encode`: (..., 4) deltas and anchors -> (..., 4) boxes in pixels."""
    xp = _namespace(deltas, anchors)
    deltas = deltas * _row(stds, xp)
    anchor_centre, anchor_size = _centre_size(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    size = anchor_size * xp.exp(xp.clip(deltas[..., 2:], -MAX_LOG_SCALE, MAX_LOG_SCALE))
    return xp.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=-1)


def clip(boxes, height, width):
    """Boxes (..., 4) cut to [0, height] x [0, width] (numbers, or tensors of the leading shape)."""
    xp = _namespace(boxes, height, width)
    sides = (height, width, height, width)
    return xp.stack([xp.clip(boxes[..., i], 0.0, side) for i, side in enumerate(sides)], axis=-1)


def dilate(boxes, factor):
    """Boxes (..., 4) scaled about their centres by ``factor`` (1.0 changes nothing)."""
    if factor == 1.0:
        return boxes
    centre = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    half = 0.5 * factor * (boxes[..., 2:] - boxes[..., :2])
    return _namespace(boxes).concatenate([centre - half, centre + half], axis=-1)


def pyramid_level(boxes, canonical_size=224.0, lowest=2, highest=5):
    """The pyramid level of a box: floor(4 + log2(sqrt(area) / canonical_size)), clipped.

    FPN paper, equation 1, in pixels of the network's input. boxes (..., 4) -> (...,) int32.

    >>> pyramid_level(np.array([[0, 0, 224, 224], [0, 0, 60, 60]], "float32"))
    array([4, 2], dtype=int32)
    """
    xp = _namespace(boxes)
    side = xp.sqrt(xp.maximum(area(boxes), 1e-6))
    # 1e-6, so that a side of exactly canonical_size is on level 4 despite rounding in log2.
    level = xp.clip(xp.floor(4.0 + xp.log2(side / canonical_size) + 1e-6), lowest, highest)
    return level.astype("int32") if xp is np else xp.cast(level, "int32")


def greedy_nms(boxes, scores, iou_threshold, limit=None):
    """Indices that greedy non-maximum suppression keeps, best first (NumPy, by OpenCV).

    Args:
        boxes: (P, 4), sorted by falling score. Boxes less than a pixel wide or high are dropped.
        scores: (P,); those below 0 are padding.
        iou_threshold: a box that overlaps a kept one by more than this is removed.
        limit: most boxes to keep; None keeps all.

    Returns:
        (K,) int, indices into ``boxes``.

    >>> greedy_nms(np.float32([[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]), np.float32([3, 2, 1]), 0.5)
    array([0, 2])
    """
    import cv2

    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    alive = np.flatnonzero((scores >= 0) & (sides >= 1.0))
    if len(alive) == 0:
        return alive
    corner_and_size = boxes[alive].astype("float64")
    corner_and_size[:, 2:] -= corner_and_size[:, :2]
    ranks = np.linspace(1.0, 0.5, len(alive), dtype="float32")  # OpenCV needs scores above 0
    kept = cv2.dnn.NMSBoxes(corner_and_size, ranks, 0.0, float(iou_threshold))
    return alive[np.asarray(kept, int).reshape(-1)[:limit]]
