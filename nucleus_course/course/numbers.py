"""Numbers that only the notebooks need: crowding, anchor coverage, bilinear sampling, agreement of label images."""

import json
from importlib.resources import files

import numpy as np

from nucleus_course.evaluation.matching import iou_from_overlap, overlap_matrix


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
    """Percent of the records' nuclei that touch another one, and percent cut by the image's edge."""
    nuclei = sum(record.count for record in records)
    touching = sum(len(touching_ids(record.labels)) for record in records)
    edge = sum(len(edge_touching_ids(record.labels)) for record in records)
    return 100.0 * touching / max(nuclei, 1), 100.0 * edge / max(nuclei, 1)


def sample_bilinear(grid: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``grid`` (H, W) sampled at rows ``y`` (M,) and columns ``x`` (N,) -> (M, N) float32.

    Half-pixel centres: cell (r, c) has its centre at (r + 0.5, c + 0.5); beyond the outermost centres the
    border's value is repeated.
    """
    from scipy.ndimage import map_coordinates

    places = np.meshgrid(np.asarray(y) - 0.5, np.asarray(x) - 0.5, indexing="ij")
    return map_coordinates(grid.astype(np.float32), places, order=1, mode="nearest")


def best_anchor_iou(boxes: np.ndarray, height: int, width: int, config) -> np.ndarray:
    """The best IoU of each box (N, 4), in image pixels, with any anchor of a model configuration -> (N,).

    Anchors lie on a regular grid, so on each level and for each ratio the one nearest to a box's centre is the
    best: no (anchors x boxes) matrix is needed. ``height`` and ``width`` are the image's.
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
    """Mean best IoU of the nuclei at the border of ``truth`` with any label in ``found``; both (H, W)."""
    iou = iou_from_overlap(overlap_matrix(found, truth))
    best = iou.max(axis=0, initial=0.0)[edge_touching_ids(truth) - 1]
    return float(best.mean()) if best.size else 0.0


def f1_of_two(first: np.ndarray, second: np.ndarray, threshold: float = 0.5) -> float:
    """F1 of two label images (H, W): the share of labels that match at an IoU above ``threshold``."""
    overlap = overlap_matrix(first, second)
    pairs = int((iou_from_overlap(overlap) > threshold).sum())
    total = int(overlap[1:].any(axis=1).sum() + overlap[:, 1:].any(axis=0).sum())
    return 2 * pairs / total if total else 1.0


def source_folds() -> dict:
    """Canonical against colour input on held-out sources: {split: table by source}.

    Each is a saved :class:`~nucleus_course.evaluation.by_source.SourceTable`, first model canonical, second colour;
    docs/strangers.md has the commands.
    """
    text = files("nucleus_course.course").joinpath("source_folds.json").read_text(encoding="utf-8")
    return json.loads(text)


def pooled_difference(folds: dict, key: str = "coco_ap") -> tuple[float, float, float]:
    """A metric's difference over the held-out sources of several splits, each source counted once.

    The splits hold out different images, so their differences are independent: the half-widths of their intervals are
    added in quadrature, weighted by the number of sources.

    Args:
        folds: as from :func:`source_folds`.

    Returns:
        (difference, low, high), first model minus second, percent.
    """
    weights = np.array([len(table["sources"]) for table in folds.values()], float)
    weights /= weights.sum()
    means = [table["means"]["unseen"][key] for table in folds.values()]
    difference = float(weights @ [mean["difference"] for mean in means])
    below = float(np.hypot.reduce(weights * [m["difference"] - m["low"] for m in means]))
    above = float(np.hypot.reduce(weights * [m["high"] - m["difference"] for m in means]))
    return difference, difference - below, difference + above
