"""Test-time flips: detect in an image and its mirror images, and fuse the results.

Boxes of all views that agree on a nucleus become one box, their mean weighted by score. Its score is
the mean over views of the best agreeing score, so a nucleus found in one view alone gets a low score
("weighted boxes fusion", Solovyev et al. 2021). Masks are predicted for the fused boxes in every view
and averaged.
"""

import numpy as np

from nucleus_course.geometry.boxes import iou_matrix

# (vertical, horizontal); the first n are used.
VIEWS = ((False, False), (False, True), (True, False), (True, True))
AGREE = 0.6  # boxes of two views with at least this IoU show the same nucleus


def flip_image(image, view):
    """An image (H, W, C) in a view."""
    vertical, horizontal = view
    return image[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def flip_boxes(boxes, view, height, width):
    """Boxes (N, 4) to a view and, since a flip is its own inverse, back."""
    boxes = boxes.copy()
    if view[0]:
        boxes[:, [0, 2]] = height - boxes[:, [2, 0]]
    if view[1]:
        boxes[:, [1, 3]] = width - boxes[:, [3, 1]]
    return boxes


def fuse_boxes(boxes, scores, kept):
    """Fuse the views' boxes around the kept ones.

    Args:
        boxes: (V, P, 4) float32, all in the image's own orientation; scores: (V, P), -1 for padding.
        kept: (K,) int indices into the flattened (V * P) boxes: the survivors of NMS over all views.

    Returns:
        boxes (K, 4) float32, scores (K,) float32.
    """
    views = len(boxes)
    centres = boxes.reshape(-1, 4)[kept]
    weight_sum = np.zeros(len(kept), "float32")
    box_sum = np.zeros((len(kept), 4), "float32")
    score_sum = np.zeros(len(kept), "float32")
    for view in range(views):
        iou = iou_matrix(centres, boxes[view])  # (K, P)
        weight = np.where((iou >= AGREE) & (scores[view] > 0), np.maximum(scores[view], 0), 0)
        score_sum += weight.max(axis=1, initial=0)
        box_sum += weight @ boxes[view]
        weight_sum += weight.sum(axis=1)
    return box_sum / np.maximum(weight_sum, 1e-9)[:, None], score_sum / views


def flip_masks(masks, view):
    """Masks (N, S, S) to a view and back."""
    vertical, horizontal = view
    return masks[:, :: -1 if vertical else 1, :: -1 if horizontal else 1]
