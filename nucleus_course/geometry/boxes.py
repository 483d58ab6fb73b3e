"""Box geometry: intersection over union, box coding, clipping, the level rule.

Boxes are float32 ``(y1, x1, y2, x2)`` in pixels with half-pixel centres: pixel ``(r, c)`` covers
``[r, r + 1) x [c, c + 1)``, so the box of one pixel has an area of 1. All functions take any leading
batch axes, are written in :mod:`keras.ops` and so run eagerly, traced or jitted on every backend.
"""

import math

from keras import ops

# A decoded box may not grow by more than this factor of its anchor (exp overflows otherwise).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def area(boxes):
    """Area in square pixels: boxes (..., 4) -> (...,). Inverted boxes have area 0."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def iou_matrix(a, b):
    """Intersection over union of every box in ``a`` with every box in ``b``.

    Args:
        a: (..., N, 4) float32 boxes (y1, x1, y2, x2), pixels.
        b: (..., M, 4) float32 boxes, the same leading axes.

    Returns:
        (..., N, M) float32 in [0, 1]; 0 where both boxes are empty.
    """
    # One plane a coordinate: (..., N, 1) against (..., 1, M), never an (N, M, 4) tensor.
    ay1, ax1, ay2, ax2 = (a[..., i][..., :, None] for i in range(4))
    by1, bx1, by2, bx2 = (b[..., i][..., None, :] for i in range(4))
    height = ops.maximum(ops.minimum(ay2, by2) - ops.maximum(ay1, by1), 0.0)
    width = ops.maximum(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1), 0.0)
    overlap = height * width
    union = area(a)[..., :, None] + area(b)[..., None, :] - overlap
    return overlap / ops.maximum(union, 1e-7)


def _centre_size(boxes):
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
    return boxes[..., :2] + 0.5 * size, size


def encode(boxes, anchors, stds):
    """Deltas (dy, dx, log dh, log dw) / stds that move ``anchors`` onto ``boxes`` (R-CNN, appendix C).

    Args:
        boxes, anchors: (..., 4) float32, pixels.
        stds: four numbers the deltas are divided by, so that their variance is near 1.

    Returns:
        (..., 4) float32, finite also for empty boxes.
    """
    centre, size = _centre_size(boxes)
    anchor_centre, anchor_size = _centre_size(anchors)
    deltas = ops.concatenate(
        [(centre - anchor_centre) / anchor_size, ops.log(size / anchor_size)], axis=-1
    )
    return deltas / ops.convert_to_tensor(stds, "float32")


def decode(deltas, anchors, stds):
    """Inverse of :func:`encode`: (..., 4) deltas and anchors -> (..., 4) boxes in pixels."""
    deltas = deltas * ops.convert_to_tensor(stds, "float32")
    anchor_centre, anchor_size = _centre_size(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    size = anchor_size * ops.exp(ops.clip(deltas[..., 2:], -MAX_LOG_SCALE, MAX_LOG_SCALE))
    return ops.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=-1)


def clip(boxes, height, width):
    """Boxes (..., 4) cut to the window [0, height] x [0, width] (numbers, or tensors of the leading shape)."""
    height = ops.cast(height, "float32")
    width = ops.cast(width, "float32")
    return ops.stack(
        [
            ops.clip(boxes[..., 0], 0.0, height),
            ops.clip(boxes[..., 1], 0.0, width),
            ops.clip(boxes[..., 2], 0.0, height),
            ops.clip(boxes[..., 3], 0.0, width),
        ],
        axis=-1,
    )


def dilate(boxes, factor):
    """Boxes (..., 4) grown about their centres by ``factor`` (1.0 leaves them as they are)."""
    if factor == 1.0:
        return boxes
    centre = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    half = 0.5 * factor * (boxes[..., 2:] - boxes[..., :2])
    return ops.concatenate([centre - half, centre + half], axis=-1)


def pyramid_level(boxes, canonical_size=224.0, lowest=2, highest=5):
    """The pyramid level a box is pooled from: floor(4 + log2(sqrt(area) / canonical_size)), clipped.

    FPN paper, equation 1, in pixels of the network's input. boxes (..., 4) -> (...,) int32.
    """
    side = ops.sqrt(ops.maximum(area(boxes), 1e-6))
    # 1e-6: a side of exactly canonical_size belongs to level 4 despite rounding in log2.
    level = ops.floor(4.0 + ops.log2(side / canonical_size) + 1e-6)
    return ops.cast(ops.clip(level, lowest, highest), "int32")
