"""Label maps: int32 images (H, W) in which 0 is background and each nucleus has its own id.

Boxes are (y1, x1, y2, x2) in pixels with half-pixel centres: pixel (r, c) covers
[r, r+1) x [c, c+1), so a nucleus' box is (first row, first column, last row + 1, last column + 1).
"""

import numpy as np


def boxes_from_labels(labels):
    """Bounding boxes of all nuclei in a label map.

    ``labels`` is an integer array (H, W). Returns ``(ids, boxes)``: the ids that occur, int32 (n,)
    ascending, and their boxes, float32 (n, 4) as (y1, x1, y2, x2) in pixels. Ids may have gaps.
    """
    labels = _check(labels)
    rows, cols = np.nonzero(labels)
    if rows.size == 0:
        return np.zeros(0, np.int32), np.zeros((0, 4), np.float32)
    values = labels[rows, cols]
    size = int(values.max()) + 1
    first_row = np.full(size, labels.shape[0], np.int64)
    last_row = np.full(size, -1, np.int64)
    first_col = np.full(size, labels.shape[1], np.int64)
    last_col = np.full(size, -1, np.int64)
    # np.nonzero walks row by row: the first hit of an id is its top row, the last its bottom row.
    last_row[values] = rows
    first_row[values[::-1]] = rows[::-1]
    np.minimum.at(first_col, values, cols)
    np.maximum.at(last_col, values, cols)
    ids = np.flatnonzero(last_row >= 0)
    boxes = np.stack([first_row[ids], first_col[ids], last_row[ids] + 1, last_col[ids] + 1], axis=1)
    return ids.astype(np.int32), boxes.astype(np.float32)


def areas_from_labels(labels):
    """Pixel counts of all nuclei: ``(ids int32 (n,), areas int64 (n,))``, ids ascending."""
    counts = np.bincount(_check(labels).ravel())
    counts[:1] = 0
    ids = np.flatnonzero(counts)
    return ids.astype(np.int32), counts[ids]


def renumber(labels):
    """The same label map with ids 1..n in the order of the old ids, int32 (H, W).

    >>> renumber(np.array([[0, 9], [4, 9]]))
    array([[0, 2],
           [1, 2]], dtype=int32)
    """
    labels = _check(labels)
    if labels.max(initial=0) > labels.size:  # ids far apart: no table as long as the largest
        present = np.unique(labels[labels > 0])
        return (np.searchsorted(present, labels, side="right") * (labels > 0)).astype(np.int32)
    present = np.bincount(labels.ravel()) > 0
    present[:1] = False
    if present[1:].all() and labels.dtype == np.int32:
        return labels
    table = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return table[labels]


def _check(labels):
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"a label map is an integer array (H, W), not {labels.dtype} {labels.shape}"
        )
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def pad_ground_truth(labels, boxes, ids, slots, seed=0):
    """Ground truth of one image in a fixed number of slots (NumPy, in the loader).

    Args:
        labels: (H, W) int32; boxes: (n, 4) float32; ids: (n,) int32 > 0.
        slots: rows to give; where n is larger a random choice stays, and the others' pixels become -1.

    Returns:
        labels (H, W) int32, boxes (slots, 4) float32, ids (slots,) int32.
    """
    if len(ids) > slots:
        keep = np.sort(np.random.default_rng(seed).permutation(len(ids))[:slots])
        left_out = np.delete(ids, keep)
        labels = np.where(np.isin(labels, left_out), -1, labels).astype("int32")
        boxes, ids = boxes[keep], ids[keep]
    padded_boxes = np.zeros((slots, 4), "float32")
    padded_ids = np.zeros(slots, "int32")
    padded_boxes[: len(ids)] = boxes
    padded_ids[: len(ids)] = ids
    return labels, padded_boxes, padded_ids
