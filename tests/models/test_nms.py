"""Exact NMS against the greedy loop that defines it."""

import numpy as np
import pytest
from keras import ops
from tiny import random_boxes

from nucleus_course.models.mask_rcnn.nms import nms_keep
from nucleus_course.prediction.pipeline import greedy_nms

THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


def iou_table(boxes):
    """IoU of every pair, one at a time."""
    table = np.zeros((len(boxes), len(boxes)), "float32")
    for i, (ay1, ax1, ay2, ax2) in enumerate(boxes.astype("float64").tolist()):
        for j, (by1, bx1, by2, bx2) in enumerate(boxes.astype("float64").tolist()):
            overlap = max(0, min(ay2, by2) - max(ay1, by1)) * max(0, min(ax2, bx2) - max(ax1, bx1))
            union = (ay2 - ay1) * (ax2 - ax1) + (by2 - by1) * (bx2 - bx1) - overlap
            table[i, j] = overlap / union if union else 0
    return table


def greedy(iou, valid, threshold):
    """The definition: best first, keep a box unless a kept one overlaps it by more than the threshold."""
    kept = []
    for j in range(len(valid)):
        if valid[j] and all(iou[i, j] <= np.float32(threshold) for i in kept):
            kept.append(j)
    keep = np.zeros(len(valid), bool)
    keep[kept] = True
    return keep


def fast(iou, valid, threshold):
    """One-round "fast NMS": suppressed boxes suppress others too."""
    return np.array([
        valid[j] and not any(valid[i] and iou[i, j] > threshold for i in range(j)) for j in range(len(valid))
    ])  # fmt: skip


def ours(boxes, valid, threshold):
    return ops.convert_to_numpy(
        nms_keep(ops.convert_to_tensor(boxes), ops.convert_to_tensor(valid), threshold)
    )


def cases():
    rng = np.random.default_rng(5)
    yield "random", random_boxes(rng, 80, 60, 60, 10, 40), rng.random(80) > 0.1
    yield "crowded", random_boxes(rng, 80, 30, 30, 10, 20), np.ones(80, bool)
    grid = rng.integers(0, 12, (80, 2))
    size = rng.integers(2, 9, (80, 2))
    yield (
        "integers",
        np.concatenate([grid, grid + size], axis=1).astype("float32"),
        rng.random(80) > 0.2,
    )
    yield "duplicates", np.repeat(random_boxes(rng, 20, 60, 60), 4, axis=0), np.ones(80, bool)
    yield "one", random_boxes(rng, 1, 60, 60), np.ones(1, bool)
    padded = random_boxes(rng, 80, 40, 40, 10, 30)
    padded[50:] = 0
    yield "padding", padded, np.arange(80) < 50
    yield "all padding", np.zeros((8, 4), "float32"), np.zeros(8, bool)
    # A chain: each box overlaps the next by 5/15 only, so greedy keeps every other one.
    left = np.arange(81, dtype="float32") * 5
    yield "chain", np.stack([0 * left, left, 0 * left + 10, left + 10], axis=1), np.ones(81, bool)


CASES = list(cases())


@pytest.mark.parametrize(("name", "boxes", "valid"), CASES, ids=[c[0] for c in CASES])
def test_both_editions_equal_greedy(name, boxes, valid):
    iou = iou_table(boxes)
    scores = np.where(valid, np.linspace(1, 0.1, len(boxes)), -1.0).astype("float32")
    for threshold in THRESHOLDS:
        expected = greedy(iou, valid, threshold)
        np.testing.assert_array_equal(
            ours(boxes, valid, threshold), expected, err_msg=f"{name} at {threshold}"
        )
        kept = greedy_nms(boxes, scores, threshold, len(boxes))
        np.testing.assert_array_equal(
            kept, np.flatnonzero(expected), err_msg=f"greedy_nms, {name} at {threshold}"
        )
        np.testing.assert_array_equal(greedy_nms(boxes, scores, threshold, 3), kept[:3])


def test_a_long_chain_by_hand():
    _, boxes, valid = CASES[-1]
    np.testing.assert_array_equal(np.flatnonzero(ours(boxes, valid, 0.3)), np.arange(0, 81, 2))
    assert ours(boxes, valid, 0.34).all()


def test_one_round_would_be_another_thing():
    """The cases above distinguish NMS from "fast NMS", which loses boxes."""
    _, boxes, valid = CASES[0]
    assert fast(iou_table(boxes), valid, 0.3).sum() < greedy(iou_table(boxes), valid, 0.3).sum()
    _, boxes, valid = CASES[-1]
    assert fast(iou_table(boxes), valid, 0.3).sum() == 1


def test_batch_axes():
    rng = np.random.default_rng(6)
    boxes = np.stack([random_boxes(rng, 60, 50, 50, 10, 30) for _ in range(6)]).reshape(2, 3, 60, 4)
    valid = rng.random((2, 3, 60)) > 0.2
    keep = ours(boxes, valid, 0.4)
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(
                keep[i, j], greedy(iou_table(boxes[i, j]), valid[i, j], 0.4)
            )


def test_greedy_nms_drops_what_is_thinner_than_a_pixel():
    boxes = np.array([[0, 0, 0.9, 5], [0, 0, 1, 1], [10, 10, 20, 20]], "float32")
    np.testing.assert_array_equal(
        greedy_nms(boxes, np.array([0.9, 0.8, 0.7], "float32"), 0.3, 10), [1, 2]
    )
    assert len(greedy_nms(np.zeros((0, 4), "float32"), np.zeros(0, "float32"), 0.3, 10)) == 0
