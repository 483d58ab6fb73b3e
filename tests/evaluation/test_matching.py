"""Overlap and the three ways of matching: closed form, brute force, and COCOeval."""

import itertools

import numpy as np
import pytest
from fakes import ellipses, noisy_detections, rle_from_mask
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from nucleus_course.evaluation.coco import IOU_THRESHOLDS, match_image
from nucleus_course.evaluation.matching import (
    best_assignment,
    iou_from_overlap,
    mask_iou,
    overlap_matrix,
    pairs_above,
    score_order_match,
)
from nucleus_course.geometry.rle import rle_from_labels, runs_from_rles


def test_shifted_squares_in_closed_form():
    """A 10 x 10 square moved by k pixels: IoU (10 - k) / (10 + k)."""
    for k in range(11):
        a, b = np.zeros((12, 30), int), np.zeros((12, 30), int)
        a[1:11, 1:11], b[1:11, 1 + k : 11 + k] = 1, 1
        overlap = overlap_matrix(a, b)
        assert overlap[1, 1] == 10 * (10 - k) and overlap.sum() == a.size
        assert iou_from_overlap(overlap)[0, 0] == pytest.approx((10 - k) / (10 + k))


def test_iou_of_label_images_equals_pycocotools_to_the_bit():
    rng = np.random.default_rng(3)
    a, b = ellipses(rng, 60, 80, 25), ellipses(rng, 60, 80, 25)
    iou = iou_from_overlap(overlap_matrix(a, b))
    expected = coco_mask.iou(rle_from_labels(a)[1], rle_from_labels(b)[1], [0] * b.max())
    assert (iou == expected).all()
    for i, j in itertools.product(range(a.max()), range(b.max())):
        one, two = a == i + 1, b == j + 1
        assert iou[i, j] == np.logical_and(one, two).sum() / np.logical_or(one, two).sum()


@pytest.mark.parametrize("seed", range(3))
def test_iou_of_whole_masks_equals_pycocotools_to_the_bit(seed):
    """Masks that overlap, one of them empty, against nuclei that do not."""
    rng = np.random.default_rng(seed)
    labels = ellipses(rng, 61, 83, 25)
    masks, _ = noisy_detections(rng, labels, extra=10)
    rles = [rle_from_mask(m) for m in [*masks, np.zeros(labels.shape, bool)]]
    expected = coco_mask.iou(rles, rle_from_labels(labels)[1], [0] * labels.max())
    assert (mask_iou(runs_from_rles(rles, *labels.shape), labels) == expected).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="different shapes"):
        overlap_matrix(np.zeros((3, 4), int), np.zeros((4, 3), int))


def test_nothing_against_something():
    assert mask_iou(runs_from_rles([], 3, 3), np.eye(3, dtype=int)).shape == (0, 1)
    nothing = np.zeros((3, 3), int)
    assert mask_iou(runs_from_rles([rle_from_mask(np.eye(3))], 3, 3), nothing).shape == (1, 0)
    assert iou_from_overlap(overlap_matrix(np.zeros((2, 2), int), np.ones((2, 2), int))).shape == (
        0,
        1,
    )
    for empty in (np.zeros((0, 3)), np.zeros((3, 0))):
        assert score_order_match(empty, IOU_THRESHOLDS).shape == (10, len(empty))
        assert match_image(empty, np.arange(len(empty))).nucleus.shape == (10, len(empty))
        assert len(best_assignment(empty)[0]) == 0


@pytest.mark.parametrize("seed", range(6))
def test_score_order_match_is_cocoevals(seed):
    """Overlapping masks, so that detections compete; IoUs rounded, so that there are ties and hits on thresholds."""
    rng = np.random.default_rng(seed)
    iou = np.round(rng.uniform(0, 1, (30, 20)) ** 0.5 * 20) / 20
    evaluator = COCOeval(iouType="segm")  # its tables, with ids from 1: it stores 0 for "no match"
    evaluator._gts[0, 1] = [{"id": g + 1, "area": 1, "ignore": 0, "iscrowd": 0} for g in range(20)]
    evaluator._dts[0, 1] = [{"id": d + 1, "area": 1, "score": 30.0 - d} for d in range(30)]
    evaluator.ious[0, 1] = iou
    expected = evaluator.evaluateImg(0, 1, [0, 1e10], 1000)["dtMatches"].astype(int) - 1
    assert (score_order_match(iou, IOU_THRESHOLDS) == expected).all() and (expected >= 0).any()


def test_score_order_match_by_hand():
    # the better score comes first
    assert score_order_match([[0.6], [0.9]], [0.5]).tolist() == [[0, -1]]
    assert score_order_match([[0.7, 0.6], [0.8, 0.55]], [0.5]).tolist() == [[0, 1]]
    # an IoU equal to the threshold matches; of equals, the last
    assert score_order_match([[0.5, 0.5]], [0.5]).tolist() == [[1]]
    assert score_order_match([[0.7, 0.0]], [0.5, 0.75]).tolist() == [[0], [-1]]


def test_scores_in_any_order_and_ties_keep_their_order():
    iou = np.array([[0.9], [0.8], [0.7]])
    found = match_image(iou, [0.2, 0.6, 0.6])
    assert found.order.tolist() == [1, 2, 0]
    assert found.nucleus[0].tolist() == [0, -1, -1]
    assert match_image(iou, [0.2, 0.6, 0.6], max_detections=1).order.tolist() == [1]


def test_pairs_above_is_strict_and_refuses_thresholds_that_leave_a_choice():
    iou = np.array([[0.5, 0.3], [0.2, 0.51]])
    assert [p.tolist() for p in pairs_above(iou, 0.5)] == [[1], [1]]
    with pytest.raises(ValueError):
        pairs_above(iou, 0.4)


@pytest.mark.parametrize("seed", range(5))
def test_best_assignment_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    iou = rng.uniform(0, 1, (4, 6)) * (rng.uniform(size=(4, 6)) < 0.6)
    best = max(sum(iou[i, p[i]] for i in range(4)) for p in itertools.permutations(range(6), 4))
    rows, columns = best_assignment(iou)
    assert iou[rows, columns].sum() == pytest.approx(best)
    assert (iou[rows, columns] > 0).all()
    assert len(set(rows)) == len(set(columns)) == len(rows)


def test_pycocotools_counts_crowded_images():
    """More than 255 masks at once: sizes and boxes must not be cut to eight bits."""
    labels = np.arange(1, 401).reshape(20, 20)
    _, rles = rle_from_labels(labels)
    assert (mask_iou(runs_from_rles(rles, 20, 20), labels) == np.eye(400)).all()
    assert coco_mask.toBbox(rles).shape == (400, 4)
