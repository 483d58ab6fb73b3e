"""RoIAlign over a feature pyramid (Mask R-CNN, section 3; aligned, half-pixel centres)."""

import numpy as np
from keras import ops

from nucleus_course.geometry.boxes import pyramid_level


def flatten_pyramid(features):
    """Pyramid levels [(B, H_l, W_l, C), ...] -> rows (B * R, C) with R = sum H_l * W_l, image by image."""
    batch, channels = features[0].shape[0], features[0].shape[-1]
    rows = [ops.reshape(f, (batch, f.shape[1] * f.shape[2], channels)) for f in features]
    rows = ops.concatenate(rows, axis=1) if len(rows) > 1 else rows[0]
    return ops.reshape(rows, (-1, channels))


def sample_grid(boxes, size):
    """Centres of a size x size grid of bins in each box: boxes (M, 4) -> y (M, size), x (M, size), pixels."""
    steps = ops.convert_to_tensor((np.arange(size, dtype="float32") + 0.5) / size)
    y = boxes[:, 0:1] + (boxes[:, 2:3] - boxes[:, 0:1]) * steps
    x = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * steps
    return y, x


def _corners(position, extent):
    """Lower cell, upper cell (int32) and the upper one's weight for feature coordinates (M, S)."""
    position = ops.clip(position, 0.0, extent - 1.0)
    low = ops.floor(position)
    high = ops.minimum(low + 1.0, extent - 1.0)
    return ops.cast(low, "int32"), ops.cast(high, "int32"), position - low


def roi_align(features, boxes, batch_index, size, *, strides, samples=1, canonical_size=224.0):
    """Bilinear crops of fixed size, each from the level of its box.

    A box in network pixels is divided into ``size x size`` bins; each bin is the mean of
    ``samples x samples`` bilinear samples at regular points. Nothing is rounded: a point at pixel y
    reads the feature map at ``y / stride - 0.5``. Points beyond the map read its edge.

    Args:
        features: P2..P5 as a list of (B, H_l, W_l, C) tensors, static shapes.
        boxes: (M, 4) float32 (y1, x1, y2, x2), network pixels.
        batch_index: (M,) int32, the image of each box.
        size: bins along a side.
        strides: pixels per cell, for each level of ``features``.
        samples: sampling points along a side of a bin.
        canonical_size: see :func:`~nucleus_course.geometry.boxes.pyramid_level`.

    Returns:
        (M, size, size, C) in the features' dtype. Gradients flow to the features, not to the boxes.
    """
    boxes = ops.stop_gradient(boxes)
    level = pyramid_level(boxes, canonical_size, 2, 1 + len(features)) - 2  # (M,)
    shapes = np.array([f.shape[1:3] for f in features], "int32")
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype("int32")

    def of_level(values, dtype):
        return ops.take(ops.convert_to_tensor(np.asarray(values, dtype)), level, axis=0)[:, None]

    stride = of_level(strides, "float32")
    height, width = of_level(shapes[:, 0], "float32"), of_level(shapes[:, 1], "float32")
    base = of_level(offsets[:-1], "int32") + batch_index[:, None] * int(offsets[-1])

    points = size * samples
    y, x = sample_grid(boxes, points)  # (M, S) each
    y_low, y_high, y_part = _corners(y / stride - 0.5, height)
    x_low, x_high, x_part = _corners(x / stride - 0.5, width)

    rows = flatten_pyramid(features)
    columns = ops.cast(width, "int32")
    dtype = rows.dtype

    def corner(y_cell, x_cell, weight):
        # (M, S, S)
        index = base[:, :, None] + y_cell[:, :, None] * columns[:, :, None] + x_cell[:, None, :]
        return ops.take(rows, index, axis=0) * ops.cast(weight, dtype)[..., None]  # (M, S, S, C)

    y_part, x_part = y_part[:, :, None], x_part[:, None, :]
    crops = (
        corner(y_low, x_low, (1.0 - y_part) * (1.0 - x_part))
        + corner(y_low, x_high, (1.0 - y_part) * x_part)
        + corner(y_high, x_low, y_part * (1.0 - x_part))
        + corner(y_high, x_high, y_part * x_part)
    )
    if samples > 1:
        channels = crops.shape[-1]
        crops = ops.mean(
            ops.reshape(crops, (-1, size, samples, size, samples, channels)), axis=(2, 4)
        )
    return crops
