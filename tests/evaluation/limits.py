"""What the cap and the mask grid cost by themselves, with a perfect detector."""

import numpy as np

from nucleus_course._util.progress import track
from nucleus_course.data.labels import areas_from_labels, boxes_from_labels, renumber
from nucleus_course.evaluation.coco import (
    IOU_THRESHOLDS,
    CocoMatches,
    PrecisionTable,
    average_precisions,
)
from nucleus_course.evaluation.report import evaluate
from nucleus_course.geometry.masks import mask_grids, paste
from nucleus_course.geometry.rle import rles_from_runs, runs_from_pixels
from nucleus_course.prediction.interchange import ImagePredictions, Predictions

SIZE_EDGES = (8, 12, 16, 24, 32, 64)  # equivalent diameters, pixels


def cap_effect(dataset, cap=100, progress=False):
    """The score of a perfect detector when only ``cap`` detections of an image count.

    Returns:
        dict: ``cap``, ``images``, ``images_over`` (with more nuclei than the cap), ``nuclei``, ``nuclei_beyond``
        (that cannot be found), ``recall`` and ``coco_ap`` in percent (None without nuclei).
    """
    counts = [
        len(areas_from_labels(dataset[image_id].labels)[0])
        for image_id in track(dataset.ids, "counting", show=progress)
    ]
    matches = []
    for count in counts:
        found = np.arange(min(count, cap))
        nucleus = np.tile(found, (IOU_THRESHOLDS.size, 1))
        matches.append(CocoMatches(count, np.ones(found.size), nucleus, found, None))
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


def mask_grid_effect(dataset, size=28, samples=2, progress=False):
    """The score of a detector that is perfect but for its masks, which pass through a ``size`` x ``size`` grid.

    To the grid and back as in :func:`~nucleus_course.geometry.masks.round_trip`, in the nuclei's own boxes.

    Returns:
        dict: ``size``; ``nuclei``; ``mean_iou`` of a nucleus with its round trip, percent; ``by_diameter``
        {"8 to 12 px": {"nuclei", "mean_iou"}}, equivalent diameters; ``metrics`` {key: percent} of the report
        on these masks.
    """
    images, ious, areas = {}, [np.zeros(0)], [np.zeros(0)]
    for image_id in track(dataset.ids, f"through {size} x {size}", show=progress):
        labels = renumber(dataset[image_id].labels)
        height, width = labels.shape
        ids, boxes = boxes_from_labels(labels)
        grids = mask_grids(labels, boxes, ids, size, samples)
        instance, row, column = paste(grids, boxes, height, width)
        runs = runs_from_pixels(instance, column * height + row, len(ids))
        own = areas_from_labels(labels)[1]
        shared = np.bincount(instance[labels[row, column] == ids[instance]], minlength=len(ids))
        ious.append(shared / (own + runs.areas - shared))
        areas.append(own)
        # where two masks overlap, the better one keeps the pixel
        rles = rles_from_runs(runs, height, width)
        images[image_id] = ImagePredictions(height, width, rles, ious[-1])
    report = evaluate(dataset, Predictions(images, 0.0), progress=progress)
    ious, diameters = np.concatenate(ious), 2 * np.sqrt(np.concatenate(areas) / np.pi)
    edges = [0, *SIZE_EDGES, np.inf]
    groups = {}
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (diameters >= low) & (diameters < high)
        name = f"{low} to {high} px" if np.isfinite(high) else f"{low} px and more"
        if inside.any():
            mean = float(100 * ious[inside].mean())
            groups[name] = {"nuclei": int(inside.sum()), "mean_iou": mean}
    return {
        "size": size,
        "nuclei": int(ious.size),
        "mean_iou": float(100 * ious.mean()) if ious.size else None,
        "by_diameter": groups,
        "metrics": report.metrics,
    }
