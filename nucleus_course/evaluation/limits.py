"""What evaluation and representation cost by themselves, with a detector that makes no mistake."""

import numpy as np

from nucleus_course.evaluation.coco import (
    IOU_THRESHOLDS,
    CocoMatches,
    PrecisionTable,
    average_precisions,
)
from nucleus_course.evaluation.report import evaluate
from nucleus_course.evaluation.scoring import compact_labels, track
from nucleus_course.geometry.rle import compress
from nucleus_course.prediction.interchange import ImagePredictions, Predictions

SIZE_EDGES = (8, 12, 16, 24, 32, 64)  # equivalent diameters, pixels


def cap_effect(dataset, cap=100, progress=False):
    """What a perfect detector scores when only ``cap`` detections of an image are looked at.

    Returns:
        dict: ``cap``, ``images``, ``images_over`` (with more nuclei than the cap), ``nuclei``, ``nuclei_beyond``
        (that cannot be found), ``recall`` and ``coco_ap`` in percent (None without nuclei).
    """
    counts = []
    for image_id in track(dataset.ids, "counting", progress):
        labels = np.asarray(dataset[image_id].labels)
        counts.append(np.unique(labels[labels > 0]).size)
    matches = []
    for count in counts:
        found = min(count, cap)
        nucleus = np.tile(np.arange(found), (IOU_THRESHOLDS.size, 1))
        matches.append(CocoMatches(count, np.ones(found), nucleus, np.arange(found), None))
    nuclei, beyond = sum(counts), sum(max(0, c - cap) for c in counts)
    ap = average_precisions(PrecisionTable(matches, cap).precision())[0]
    return {
        "cap": cap,
        "images": len(counts),
        "images_over": sum(c > cap for c in counts),
        "nuclei": nuclei,
        "nuclei_beyond": beyond,
        "recall": 100.0 * (nuclei - beyond) / nuclei if nuclei else None,
        "coco_ap": 100.0 * ap if nuclei else None,
    }


def grid_round_trip(mask, size=28):
    """A mask through a ``size`` x ``size`` grid over its box and back.

    Each cell is the mask, taken bilinearly at the cell's centre, at 0.5 or more; each pixel then reads the grid
    bilinearly at its own centre and is on at 0.5 or more. Half-pixel centres: pixel r is at r + 0.5.

    Args:
        mask: (h, w) bool, cut out at the nucleus' box.

    Returns:
        (h, w) bool.
    """
    mask = np.asarray(mask)
    height, width = mask.shape
    padded = np.pad(mask.astype(np.float64), 1)  # outside of its box a nucleus is absent
    rows = (np.arange(size) + 0.5) * height / size - 0.5 + 1
    columns = (np.arange(size) + 0.5) * width / size - 0.5 + 1
    grid = (_bilinear(padded, rows, columns) >= 0.5).astype(np.float64)
    rows = np.clip((np.arange(height) + 0.5) * size / height - 0.5, 0, size - 1)
    columns = np.clip((np.arange(width) + 0.5) * size / width - 0.5, 0, size - 1)
    return _bilinear(grid, rows, columns) >= 0.5


def _bilinear(values, rows, columns):
    """``values`` (H, W) at every combination of ``rows`` and ``columns``, positions between pixel centres."""

    def weights(at, length):
        low = np.clip(np.floor(at).astype(int), 0, max(0, length - 2))
        matrix = np.zeros((at.size, length))
        part = at - low
        matrix[np.arange(at.size), low] += 1 - part
        matrix[np.arange(at.size), np.minimum(low + 1, length - 1)] += part
        return matrix

    return weights(rows, values.shape[0]) @ values @ weights(columns, values.shape[1]).T


def mask_grid_effect(dataset, size=28, progress=False):
    """What a detector scores whose only fault is that its masks pass through a ``size`` x ``size`` grid.

    Returns:
        dict: ``size``; ``nuclei``; ``mean_iou`` of a nucleus with its round trip, percent; ``by_diameter``
        {"8 to 12 px": {"nuclei", "mean_iou"}}, equivalent diameters; ``metrics`` {key: percent} of the report
        on these masks.
    """
    images, ious, areas = {}, [], []
    for image_id in track(dataset.ids, f"through {size} x {size}", progress):
        labels = compact_labels(dataset[image_id].labels)
        masks, scores = [], []
        for label, (top, left, bottom, right) in _windows(labels):
            mask = labels[top:bottom, left:right] == label
            back = grid_round_trip(mask, size)
            shared = np.logical_and(mask, back).sum()
            ious.append(shared / np.logical_or(mask, back).sum())
            areas.append(mask.sum())
            masks.append(_placed(back, top, left, labels.shape))
            scores.append(ious[-1])  # where two round trips overlap the truer one keeps the pixel
        images[image_id] = ImagePredictions(*labels.shape, compress(masks), scores)
    report = evaluate(dataset, Predictions(images, 0.0), progress=progress)
    ious, diameters = np.array(ious), 2 * np.sqrt(np.array(areas) / np.pi)
    edges = [0, *SIZE_EDGES, np.inf]
    groups = {}
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (diameters >= low) & (diameters < high)
        name = f"{low} to {high} px" if np.isfinite(high) else f"{low} px and more"
        if inside.any():
            groups[name] = {
                "nuclei": int(inside.sum()),
                "mean_iou": float(100 * ious[inside].mean()),
            }
    return {
        "size": size,
        "nuclei": int(ious.size),
        "mean_iou": float(100 * ious.mean()) if ious.size else None,
        "by_diameter": groups,
        "metrics": report.metrics,
    }


def _windows(labels):
    """(label, (top, left, bottom, right)) of each label present."""
    from scipy.ndimage import find_objects

    for label, window in enumerate(find_objects(labels), start=1):
        if window is not None:
            yield label, (window[0].start, window[1].start, window[0].stop, window[1].stop)


def _placed(mask, top, left, shape):
    """A small mask at its place in an image, as an RLE with a list of counts."""
    rows, columns = np.nonzero(mask)
    position = np.sort((columns + left) * shape[0] + rows + top)
    total = shape[0] * shape[1]
    if not position.size:
        return {"size": list(shape), "counts": [total]}
    breaks = np.flatnonzero(np.diff(position) != 1)
    starts = position[np.append(0, breaks + 1)]
    ends = position[np.append(breaks, position.size - 1)] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    return {"size": list(shape), "counts": np.diff(np.concatenate([[0], edges, [total]])).tolist()}
