"""Mask grids and the image: pasting."""

import numpy as np

PIXELS_AT_ONCE = 2_000_000  # pasted together: 8 MB of float32


def paste(probs, boxes, height, width, threshold=0.5):
    """Mask grids back onto the image.

    Each pixel whose centre lies in a box reads the box's S x S grid bilinearly (half-pixel centres, cells
    beyond the rim repeat it) and is on at ``threshold`` or more.

    Args:
        probs: (N, S, S) float32; boxes: (N, 4) float32 (y1, x1, y2, x2), image pixels.

    Returns:
        instance, row, column (int64 each) of the pixels that are on, by instance, column by column.
    """
    boxes = np.asarray(boxes, "float32")
    # The pixels whose centres are inside: from ceil(edge - 0.5) to ceil(edge - 0.5) - 1.
    first, last = (np.ceil(boxes[:, i : i + 2] - 0.5).astype("int64") for i in (0, 2))
    first, last = (np.clip(edge, 0, (height, width)) for edge in (first, last))
    extent = last - first
    # Boxes of like size go together, as grids that hold the largest of them.
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
    """:func:`paste` for boxes of like size: two matrix products a box, of hats around where its pixels read the grid."""
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
