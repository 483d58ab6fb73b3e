"""Anchors: the boxes that the region proposal network scores and moves (Ren et al. 2015; FPN, section 4.1).

They depend on the image size alone, so they are computed in NumPy, once per size, and enter the graph as a
constant. Each level has one size and several ratios; a ratio is height over width and keeps the area.
"""

import functools

import numpy as np


def level_shapes(height, width, strides):
    """(rows, columns) of each pyramid level for an input of height x width pixels, with 'same' padding."""
    return tuple((-(-height // s), -(-width // s)) for s in strides)


def anchor_count(height, width, strides, ratios):
    """Number of anchors in closed form: the sum over levels of rows x columns x ratios."""
    return sum(r * c for r, c in level_shapes(height, width, strides)) * len(ratios)


@functools.lru_cache(maxsize=64)
def pyramid_anchors(height, width, strides, sizes, ratios):
    """All anchors of an image, level by level, row by row, ratio by ratio.

    Args:
        height, width: the network's input size, pixels.
        strides: pixels per feature cell, for each level.
        sizes: side of the square anchor in pixels, for each level.
        ratios: height over width.

    Returns:
        (A, 4) float32 (y1, x1, y2, x2), pixels, centred on the cells' centres ``(i + 0.5) * stride``.
        Anchors may reach beyond the image's edge. The array is shared and read-only.
    """
    if len(strides) != len(sizes):
        raise ValueError(
            f"{len(strides)} strides but {len(sizes)} anchor sizes: give one size per level"
        )
    root = np.sqrt(np.asarray(ratios, "float64"))
    levels = []
    for (rows, columns), stride, size in zip(level_shapes(height, width, strides), strides, sizes):
        # (ratios, 2) half height, half width
        half = 0.5 * size * np.stack([root, 1.0 / root], axis=-1)
        y = (np.arange(rows) + 0.5) * stride
        x = (np.arange(columns) + 0.5) * stride
        # (rows, columns, 1, 2)
        centre = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[:, :, None]
        boxes = np.concatenate([centre - half, centre + half], axis=-1)
        levels.append(boxes.reshape(-1, 4))
    anchors = np.concatenate(levels).astype("float32")
    anchors.setflags(write=False)
    return anchors
