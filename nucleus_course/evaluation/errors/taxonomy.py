"""Why a detection or a nucleus has no partner: one class for each, by rules applied in a fixed order.

The classes follow Bolya et al. 2020 (TIDE, arXiv:2008.08115) where possible (its localisation error is *poor boundary*
here, its background error *spurious*) and add those that matter for nuclei: split, merged, and cut by the edge.

A matched pair is *matched*. For a **detection** without a nucleus, the first rule that holds:

1. *duplicate*: its IoU is above 0.5 with a nucleus that another detection matched, or more than half of it lies
   on better-scored detections;
2. *merged*: it covers more than half of each of two or more nuclei;
3. *split*: more than half of it lies in one nucleus, as does more than half of another detection;
4. *cut by the edge*: it touches the border of the image;
5. *poor boundary*: its IoU with some nucleus is at least 0.1;
6. *spurious*: anything else.

For a **nucleus** without a detection: *merged* (a detection covers more than half of it and of another nucleus),
*split* (two or more detections lie in it by more than half), *cut by the edge*, *poor boundary* (IoU of at least 0.1
with some detection), *missed*.
"""

import numpy as np

CLASSES = (
    *("matched", "poor boundary", "missed", "spurious"),
    *("duplicate", "split", "merged", "cut by the edge"),
)
MATCHED, POOR, MISSED, SPURIOUS, DUPLICATE, SPLIT, MERGED, CUT = range(len(CLASSES))
MATCH_IOU = 0.5
TOUCH_IOU = 0.1
MOST = 0.5


def classify(shared, areas, nucleus_areas, match, lost, at_edge, nucleus_at_edge):
    """Put every detection and every nucleus of an image in one class.

    Args:
        shared: (D, G) pixels that each detection's whole mask shares with each nucleus.
        areas, nucleus_areas: (D,), (G,) pixels.
        match: (D,) int, the nucleus that each detection is matched with, or -1; one to one.
        lost: (D,) fraction of each mask that lies on better-scored detections.
        at_edge, nucleus_at_edge: (D,), (G,) bool, whether it touches the border of the image.

    Returns:
        (classes of the detections (D,), of the nuclei (G,)), int8 indices into ``CLASSES``. As many detections
        as nuclei are ``MATCHED``: the true positives. The others are the false positives and false negatives.
    """
    shared = np.asarray(shared, np.float64)
    areas, nucleus_areas = np.maximum(areas, 1)[:, None], np.maximum(nucleus_areas, 1)[None]
    iou = shared / (areas + nucleus_areas - shared)
    covers = shared / nucleus_areas > MOST
    inside = shared / areas > MOST
    matched = match >= 0
    inside[np.flatnonzero(matched), match[matched]] = True
    taken = np.zeros(shared.shape[1], bool)
    taken[match[matched]] = True
    merging = covers.sum(1) >= 2
    pieces = inside.sum(0)

    detection_class = np.full(shared.shape[0], SPURIOUS, np.int8)
    for name, holds in (  # the last rule first, so that the first overwrites
        (POOR, (iou >= TOUCH_IOU).any(1)),
        (CUT, at_edge),
        (SPLIT, (inside & (pieces >= 2)).any(1)),
        (MERGED, merging),
        (DUPLICATE, (iou[:, taken] > MATCH_IOU).any(1) | (np.asarray(lost) > MOST)),
        (MATCHED, matched),
    ):
        detection_class[holds] = name

    nucleus_class = np.full(shared.shape[1], MISSED, np.int8)
    for name, holds in (
        (POOR, (iou >= TOUCH_IOU).any(0)),
        (CUT, nucleus_at_edge),
        (SPLIT, pieces >= 2),
        (MERGED, (covers & merging[:, None]).any(0)),
        (MATCHED, taken),
    ):
        nucleus_class[holds] = name
    return detection_class, nucleus_class
