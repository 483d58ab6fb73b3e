"""Numbers that the notebooks ask for and the library has no other use for, in NumPy.

Crowding, the mask grid's round trip, anchor coverage, and the final steps of detection (NMS, pasting)
on stored candidates, so that the explorers need not run the network again.
"""

from dataclasses import dataclass

import numpy as np


def touching_ids(labels: np.ndarray) -> np.ndarray:
    """Ids of nuclei in a label image (H, W) that share a pixel edge with another nucleus, ascending."""
    found = []
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        meet = (a != b) & (a > 0) & (b > 0)
        found += [a[meet], b[meet]]
    return np.unique(np.concatenate(found))


def edge_touching_ids(labels: np.ndarray) -> np.ndarray:
    """Ids of nuclei with a pixel in the outermost rows or columns of the image, ascending."""
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return border[border > 0]


def crowding(records) -> tuple[float, float]:
    """Percent of the records' nuclei that touch another one, and percent that the image's edge cuts."""
    nuclei = sum(record.count for record in records)
    touching = sum(len(touching_ids(record.labels)) for record in records)
    edge = sum(len(edge_touching_ids(record.labels)) for record in records)
    return 100.0 * touching / max(nuclei, 1), 100.0 * edge / max(nuclei, 1)


def sample_bilinear(grid: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``grid`` (H, W) read at rows ``y`` (M,) and columns ``x`` (N,) -> (M, N) float32.

    Half-pixel centres: cell (r, c) has its centre at (r + 0.5, c + 0.5); beyond the outermost centres the
    border's value is repeated.
    """

    def corners(position, extent):
        position = np.clip(position - 0.5, 0, extent - 1)
        low = np.floor(position).astype(int)
        return low, np.minimum(low + 1, extent - 1), (position - low).astype(np.float32)

    y0, y1, v = corners(np.asarray(y, float), grid.shape[0])
    x0, x1, u = corners(np.asarray(x, float), grid.shape[1])
    grid = grid.astype(np.float32)
    top = grid[np.ix_(y0, x0)] * (1 - u) + grid[np.ix_(y0, x1)] * u
    bottom = grid[np.ix_(y1, x0)] * (1 - u) + grid[np.ix_(y1, x1)] * u
    return top * (1 - v[:, None]) + bottom * v[:, None]


def paste(probabilities: np.ndarray, box, height: int, width: int):
    """A mask grid (S, S) stretched over its box (y1, x1, y2, x2) of an image: ``(rows, columns, values)``.

    ``rows`` and ``columns`` are slices of the image's pixels whose centres lie in the box, ``values`` the
    interpolated probabilities there, float32.
    """
    y1, x1, y2, x2 = (float(v) for v in box)
    rows = np.arange(max(int(np.ceil(y1 - 0.5)), 0), min(int(np.ceil(y2 - 0.5)), height))
    columns = np.arange(max(int(np.ceil(x1 - 0.5)), 0), min(int(np.ceil(x2 - 0.5)), width))
    if not (len(rows) and len(columns)):
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32)
    size_y, size_x = probabilities.shape
    values = sample_bilinear(
        probabilities,
        (rows + 0.5 - y1) / (y2 - y1) * size_y,
        (columns + 0.5 - x1) / (x2 - x1) * size_x,
    )
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), values


@dataclass(frozen=True)
class RoundTrip:
    """A mask, its version on the grid, the mask pasted back (all bool), and the IoU of the two masks."""

    mask: np.ndarray
    grid: np.ndarray
    pasted: np.ndarray
    iou: float


def round_trip(mask: np.ndarray, box, size: int = 28, crop: bool = False) -> RoundTrip:
    """A mask (H, W) through a ``size`` x ``size`` grid over its box and back, as Mask R-CNN represents it.

    The grid samples the mask at the centres of its cells (the nearest pixel decides), then the grid is
    interpolated back and cut at 0.5. ``crop`` returns the masks cut to the box.
    """
    y1, x1, y2, x2 = (float(v) for v in box)
    steps = (np.arange(size) + 0.5) / size
    rows = np.clip((y1 + (y2 - y1) * steps).astype(int), 0, mask.shape[0] - 1)
    columns = np.clip((x1 + (x2 - x1) * steps).astype(int), 0, mask.shape[1] - 1)
    grid = mask[np.ix_(rows, columns)]
    pasted = np.zeros(mask.shape, bool)
    where_rows, where_columns, values = paste(grid, box, *mask.shape)
    pasted[where_rows, where_columns] = values >= 0.5
    iou = float((mask & pasted).sum() / (mask | pasted).sum())
    if crop:
        mask, pasted = (m[int(y1) : int(y2), int(x1) : int(x2)] for m in (mask, pasted))
    return RoundTrip(mask, grid, pasted, iou)


def box_iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every box in ``a`` (N, 4) with every box in ``b`` (M, 4) -> (N, M) float32."""
    height = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    width = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return (shared / np.maximum(union, 1e-9)).astype(np.float32)


def best_anchor_iou(boxes: np.ndarray, height: int, width: int, config) -> np.ndarray:
    """The best IoU of each box (N, 4), in image pixels, with any anchor of a model configuration -> (N,).

    Anchors sit on a regular grid, so the position nearest a box's centre is the best of its level and ratio:
    no (anchors x boxes) matrix is needed. ``height`` and ``width`` are the image's.
    """
    scale = config.upsample
    boxes = boxes.astype(np.float64) * scale
    centre = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    best = np.zeros(len(boxes))
    for stride, side in zip(config.strides, config.anchor_sizes):
        cells = np.ceil(np.array([height * scale, width * scale]) / stride)
        near = np.clip(np.round(centre / stride - 0.5), 0, cells - 1)
        middle = (near + 0.5) * stride
        for ratio in config.anchor_ratios:
            half = 0.5 * side * np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)])
            anchor = np.concatenate([middle - half, middle + half], axis=1)
            shared = np.maximum(
                np.minimum(anchor[:, 2:], boxes[:, 2:]) - np.maximum(anchor[:, :2], boxes[:, :2]), 0
            ).prod(axis=1)
            union = 4 * half.prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared
            best = np.maximum(best, shared / union)
    return best


def edge_overlap(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over the nuclei at the border of ``truth`` of the best IoU with any label in ``found``; both (H, W)."""
    best = []
    for number in edge_touching_ids(truth):
        mask = truth == number
        labels, shared = np.unique(found[mask], return_counts=True)
        ious = [
            n / (mask.sum() + (found == label).sum() - n)
            for label, n in zip(labels, shared)
            if label
        ]
        best.append(max(ious, default=0.0))
    return float(np.mean(best)) if best else 0.0


def predict_with_mirrored_edges(model, image: np.ndarray, margin: int = 32) -> np.ndarray:
    """Label image (H, W) of ``image`` (H, W, 3), detected with ``margin`` mirrored pixels around it and cut back."""
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return model.predict(padded).label_image()[margin:-margin, margin:-margin]


def f1_of_two(first: np.ndarray, second: np.ndarray, threshold: float = 0.5) -> float:
    """F1 of two label images (H, W) with each other: the share of labels that pair at an IoU above ``threshold``."""
    a, b = int(first.max()) + 1, int(second.max()) + 1
    shared = np.bincount(
        first.ravel().astype(np.int64) * b + second.ravel(), minlength=a * b
    ).reshape(a, b)
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - shared[1:, 1:]
    pairs = int((shared[1:, 1:] > threshold * union).sum())
    total = int((shared.sum(axis=1)[1:] > 0).sum() + (shared.sum(axis=0)[1:] > 0).sum())
    return 2 * pairs / total if total else 1.0
