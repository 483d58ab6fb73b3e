"""Label maps: int32 images (H, W) in which 0 is background and each nucleus has its own id.

Boxes are (y1, x1, y2, x2) in pixels with half-pixel centres: pixel (r, c) covers
[r, r+1) x [c, c+1), so a nucleus's box is (first row, first column, last row + 1, last column + 1).
"""

import numpy as np


def boxes_from_labels(labels):
    """Bounding boxes of all nuclei in a label map.

    ``labels`` is an integer array (H, W). Returns ``(ids, boxes)``: the ids that occur, int32 (n,)
    ascending, and their boxes, float32 (n, 4) as (y1, x1, y2, x2) in pixels. Ids may have gaps.
    """
    from scipy.ndimage import find_objects

    labels = _check(labels)
    windows = find_objects(labels) if labels.size else []
    ids = [label for label, window in enumerate(windows, 1) if window]
    boxes = [[r.start, c.start, r.stop, c.stop] for r, c in filter(None, windows)]
    return np.array(ids, np.int32), np.array(boxes, np.float32).reshape(-1, 4)


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
    if labels.max(initial=0) > labels.size:  # too sparse for a table of all ids
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
    """Ground truth of one image in a fixed number of slots.

    Args:
        labels: (H, W) int32; boxes: (n, 4) float32; ids: (n,) int32 > 0.
        slots: number of rows; if n is larger, a random choice is kept, and the others' pixels become -1.

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
