"""Mask grids: pasting them onto the image, and making them from label images."""

from dataclasses import dataclass

import numpy as np

PIXELS_AT_ONCE = 2_000_000  # pasted together: 8 MB of float32


def paste(probs, boxes, height, width, threshold=0.5):
    """Paste mask grids onto the image.

    Each pixel whose centre lies in a box samples the box's S x S grid bilinearly (half-pixel centres, edge
    cells repeated) and is set at ``threshold`` or more.

    Args:
        probs: (N, S, S) float32; boxes: (N, 4) float32 (y1, x1, y2, x2), image pixels.

    Returns:
        instance, row, column (int64 each) of the pixels that are set, by instance, column by column.
    """
    boxes = np.asarray(boxes, "float32")
    # Pixels whose centres are inside: from ceil(edge - 0.5) to ceil(edge - 0.5) - 1.
    first, last = (np.ceil(boxes[:, i : i + 2] - 0.5).astype("int64") for i in (0, 2))
    first, last = (np.clip(edge, 0, (height, width)) for edge in (first, last))
    extent = last - first
    # Boxes of similar size are pasted together.
    room = np.ceil(np.log2(np.maximum(extent, 8)) * 2).astype("int64")
    shown = np.flatnonzero((extent > 0).all(axis=1))
    order = shown[np.lexsort((shown, room[shown, 1], room[shown, 0]))]
    parts = []
    for group in np.split(order, np.flatnonzero(np.diff(room[order], axis=0).any(axis=1)) + 1):
        step = max(
            1, int(PIXELS_AT_ONCE // max(1, extent[group].max(axis=0).prod())) if len(group) else 1
        )
        parts += [
            _paste(probs, boxes, first, extent, group[i : i + step], threshold)
            for i in range(0, len(group), step)
        ]
    if not parts:
        return tuple(np.zeros((3, 0), "int64"))
    instance, row, column = (np.concatenate(values) for values in zip(*parts))
    back = np.argsort(instance, kind="stable")
    return instance[back], row[back], column[back]


def _paste(probs, boxes, first, extent, group, threshold):
    """:func:`paste` for boxes of similar size: two matrix products per box, with its pixels' interpolation weights."""
    size = probs.shape[-1]
    rooms = extent[group].max(axis=0)
    hats = []
    for axis, room in enumerate(rooms):
        low, high = boxes[group, axis, None], boxes[group, axis + 2, None]
        centre = first[group, axis, None] + np.arange(room) + 0.5
        place = np.clip(
            (centre - low) * (size / np.maximum(high - low, 1e-6)) - 0.5, 0, size - 1
        ).astype("float32")
        hats.append(
            np.maximum(1.0 - np.abs(place[..., None] - np.arange(size, dtype="float32")), 0.0)
        )
    grids = np.asarray(probs[group], "float32")
    on = hats[1] @ (hats[0] @ grids).transpose(0, 2, 1) >= threshold  # (N, columns, rows)
    for axis, room in enumerate(rooms):
        inside = np.arange(room) < extent[group, axis, None]
        on &= inside[:, None, :] if axis == 0 else inside[:, :, None]
    number, column, row = np.nonzero(on)
    return group[number], row + first[group, 0][number], column + first[group, 1][number]


def ranges(starts, counts):
    """The concatenated indices start, start + 1, … of several ranges.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(counts, dtype=np.int64)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


@dataclass(frozen=True)
class RoundTrip:
    """A mask on a mask grid, and pasted back.

    Attributes:
        grid: (S, S) float32, the share of each cell that the mask covers.
        pasted: (H, W) bool, the grid pasted onto the image.
        iou: of the mask and ``pasted``.
    """

    grid: np.ndarray
    pasted: np.ndarray
    iou: float


def mask_grids(labels, boxes, ids, size=28, samples=2):
    """Masks on their grids, like the mask head's targets.

    Args:
        labels: (H, W) int; boxes: (N, 4) (y1, x1, y2, x2), pixels; ids: (N,) the label in each box.
        size: cells along a side; samples: points along a side of a cell, each reading its pixel.

    Returns:
        (N, size, size) float32, the share of each cell's points that lie on the nucleus, 0 beyond the image.

    >>> mask_grids(np.array([[7, 0], [7, 7]]), np.array([[0, 0, 2, 2]]), [7], size=2)[0]
    array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    labels, boxes = np.asarray(labels), np.asarray(boxes, "float32").reshape(-1, 4)
    steps = (np.arange(size * samples, dtype="float32") + 0.5) / np.float32(size * samples)
    places, inside = [], []
    for axis, extent in enumerate(labels.shape):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        place = np.floor(low + (high - low) * steps).astype(int)
        places.append(np.clip(place, 0, extent - 1))
        inside.append((place >= 0) & (place < extent))
    hit = labels[places[0][:, :, None], places[1][:, None, :]] == np.asarray(ids)[:, None, None]
    hit &= inside[0][:, :, None] & inside[1][:, None, :]
    return hit.reshape(-1, size, samples, size, samples).mean((2, 4), dtype="float32")


def round_trip(mask, box, size=28, samples=2):
    """A mask on a grid over its box, and back on the image: the error of this representation.

    Args:
        mask: (H, W) bool; box: (y1, x1, y2, x2), pixels.
        size, samples: see :func:`mask_grids`.

    Returns:
        :class:`RoundTrip`. Its IoU is 1 if both masks are empty.

    >>> rows, columns = np.indices((40, 40))
    >>> disc = (rows - 20) ** 2 + (columns - 20) ** 2 <= 12**2
    >>> [round(round_trip(disc, (8, 8, 33, 33), size).iou, 3) for size in (28, 14, 7)]
    [1.0, 0.965, 0.914]
    """
    mask = np.asarray(mask, bool)
    grid = mask_grids(mask, [box], [True], size, samples)
    pasted = np.zeros(mask.shape, bool)
    _, row, column = paste(grid, np.asarray([box]), *mask.shape)
    pasted[row, column] = True
    union = (mask | pasted).sum()
    return RoundTrip(grid[0], pasted, float((mask & pasted).sum() / union) if union else 1.0)
