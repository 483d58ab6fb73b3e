"""Features of the objects in a label image: size, neighbours, distance to the edge, contrast; and their bins."""

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

REACH = 10  # pixels around an object in which neighbours count
RING = 5  # pixels around an object that give its background

# feature -> (upper edges of the bins, names of the bins)
BINS = {
    "size": (
        (10, 15, 20, 30),
        ("under 10 px", "10 to 15 px", "15 to 20 px", "20 to 30 px", "30 px and over"),
    ),
    "crowding": ((1, REACH), ("touching", f"within {REACH} px", "alone")),
    "edge": ((1, 10), ("at the edge", "within 10 px", "inside")),
    "contrast": ((0.05, 0.1, 0.2), ("under 0.05", "0.05 to 0.1", "0.1 to 0.2", "0.2 and over")),
}


def object_features(labels, image=None):
    """Features of every label present, in rising order.

    Args:
        labels: (H, W) int32, 0 background.
        image: (H, W, 3) or (H, W) uint8, or None.

    Returns:
        dict of arrays (n, ...): ``label``; ``area`` (pixels); ``size`` (equivalent diameter, pixels); ``box`` (y1, x1,
        y2, x2), int64; ``crowding`` (pixels to the nearest other object, inf beyond ``REACH``); ``edge`` (pixels
        between its box and the border); ``contrast`` (absolute difference of its mean grey value to that of the
        background within ``RING`` pixels, 0 to 1; NaN without image or background).
    """
    height, width = labels.shape
    grey = None
    if image is not None:
        grey = np.asarray(image, np.float32)
        grey = grey.mean(2) if grey.ndim == 3 else grey
    found = []
    for label, window in enumerate(find_objects(labels), start=1):
        if window is None:
            continue
        top, bottom, left, right = window[0].start, window[0].stop, window[1].start, window[1].stop
        rows = slice(max(0, top - REACH), bottom + REACH)
        columns = slice(max(0, left - REACH), right + REACH)
        crop = labels[rows, columns]
        own = crop == label
        others = (crop > 0) & ~own
        gap, contrast = np.inf, np.nan
        if others.any() or grey is not None:
            distance = distance_transform_edt(~own)
            if others.any():
                gap = distance[others].min() - 1  # touching pixels have the distance 1
            ring = (distance <= RING) & (crop == 0)
            if grey is not None and ring.any():
                values = grey[rows, columns]
                contrast = abs(values[own].mean() - values[ring].mean()) / 255
        edge = min(top, left, height - bottom, width - right)
        gap = gap if gap < REACH else np.inf
        found.append((label, int(own.sum()), (top, left, bottom, right), gap, edge, contrast))
    label, area, box, gap, edge, contrast = zip(*found) if found else ((),) * 6
    area = np.array(area, np.int64)
    return {
        "label": np.array(label, np.int64),
        "area": area,
        "size": 2 * np.sqrt(area / np.pi),
        "box": np.array(box, np.int64).reshape(-1, 4),
        "crowding": np.array(gap, np.float64),
        "edge": np.array(edge, np.float64),
        "contrast": np.array(contrast, np.float64),
    }


def bin_of(feature, values):
    """Names of the bins that values fall in: (n,) of str; "unknown" for NaN.

    >>> bin_of("crowding", [0, 1, np.nan]).tolist()
    ['touching', 'within 10 px', 'unknown']
    """
    edges, names = BINS[feature]
    values = np.asarray(values, np.float64)
    named = np.array([*names, "unknown"], dtype=object)
    place = np.searchsorted(edges, values, side="right")
    return named[np.where(np.isnan(values), len(names), place)]
