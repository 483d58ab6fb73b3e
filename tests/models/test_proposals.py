"""From the region proposal network's output to proposals, against a NumPy reference."""

import numpy as np
import pytest
from keras import ops

from nucleus_course.geometry.boxes import greedy_nms
from nucleus_course.models.mask_rcnn.anchors import level_shapes, pyramid_anchors
from nucleus_course.models.mask_rcnn.proposals import level_budget, propose

SIDE = 128
STRIDES, SIZES, RATIOS = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128), (0.5, 1.0, 2.0)
ANCHORS = pyramid_anchors(SIDE, SIDE, STRIDES, SIZES, RATIOS)
LEVELS = [r * c * 3 for r, c in level_shapes(SIDE, SIDE, STRIDES)]
STDS = np.array([0.1, 0.1, 0.2, 0.2], "float32")


def network_output(batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, len(ANCHORS))).astype("float32"), rng.normal(
        size=(batch, len(ANCHORS), 4)
    ).astype("float32")


def ours(scores, deltas, window, **options):
    options = {
        "stds": tuple(STDS.tolist()),
        "pre_nms": 60,
        "post_nms": 100,
        "nms_iou": 0.7,
        **options,
    }
    arrays = [ops.convert_to_tensor(a) for a in (scores, deltas)]
    found = propose(
        *arrays, ANCHORS, LEVELS, ops.convert_to_tensor(np.asarray(window, "float32")), **options
    )
    return [ops.convert_to_numpy(v) for v in found]


def reference(scores, deltas, window, pre_nms=60, post_nms=100, nms_iou=0.7):
    """One image: (boxes, scores) of the proposals, best first."""
    found, start = [], 0
    for size in LEVELS:
        index = (
            start + np.argsort(-scores[start : start + size], kind="stable")[: min(size, pre_nms)]
        )
        start += size
        anchors = ANCHORS[index].astype("float64")
        centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        inside = (centre < window).all(axis=1)
        move = deltas[index] * STDS
        middle, grown = centre + move[:, :2] * side, side * np.exp(move[:, 2:])
        boxes = np.clip(
            np.concatenate([middle - grown / 2, middle + grown / 2], axis=1), 0, np.tile(window, 2)
        )
        real = inside & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
        kept = greedy_nms(boxes, np.where(real, 1.0, -1.0), nms_iou, len(boxes))
        found += [(scores[index[k]], boxes[k]) for k in kept]
    found = sorted(found, key=lambda pair: -pair[0])[:post_nms]
    return np.array([box for _, box in found]), np.array([score for score, _ in found])


def test_budget():
    """A sixteenth of a level's anchors, at least 200, at most the preset's limit and all of them."""
    assert level_budget(49152, 1000) == 1000
    assert level_budget(12288, 1000) == 768
    assert level_budget(3072, 1000) == 200
    assert level_budget(192, 1000) == 192
    assert level_budget(49152, 100) == 100


@pytest.mark.parametrize(
    ("pre_nms", "count"),
    [(1000, 200 + 200 + 192 + 48 + 12), (190, 190 + 190 + 190 + 48 + 12), (10, 50)],
)
def test_so_many_of_each_level_go_into_nms(pre_nms, count):
    """``pre_nms`` of the config is an upper limit: levels of 3072, 768, 192, 48 and 12 anchors, nothing suppressed."""
    scores, deltas = network_output(1)
    options = {"pre_nms": pre_nms, "post_nms": 5000, "nms_iou": 1.0}
    assert LEVELS == [3072, 768, 192, 48, 12]
    assert ours(scores, 0 * deltas, [(SIDE, SIDE)], **options)[2].sum() == count


@pytest.mark.parametrize("post_nms", [40, 100])
def test_proposals_are_those_of_the_reference(post_nms):
    scores, deltas = network_output(2)
    windows = [(128, 128), (70, 50)]
    boxes, ranks, valid = ours(scores, deltas, windows, post_nms=post_nms)
    assert boxes.dtype == np.float32 and boxes.shape == (2, post_nms, 4)
    for b, window in enumerate(windows):
        expected, expected_ranks = reference(scores[b], deltas[b], window, post_nms=post_nms)
        count = len(expected)
        np.testing.assert_array_equal(valid[b], np.arange(post_nms) < count)
        np.testing.assert_allclose(ranks[b, :count], expected_ranks, rtol=1e-6)
        np.testing.assert_allclose(boxes[b, :count], expected, atol=1e-3)
        assert not boxes[b, count:].any()


def test_nothing_is_proposed_in_the_padding():
    scores, deltas = network_output(1, seed=3)
    # The best scores by far lie beyond the window.
    centre = (ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2
    scores[0] += np.where((centre >= (64, 48)).any(axis=1), -10, -30)
    boxes, _, valid = ours(scores, 0 * deltas, [(64, 48)], pre_nms=10_000, post_nms=100)
    real = boxes[0][valid[0]]
    assert (real >= 0).all() and (real[:, [0, 2]] <= 64).all() and (real[:, [1, 3]] <= 48).all()
    everything = ours(scores, 0 * deltas, [(128, 128)], pre_nms=10_000, post_nms=100)[2]
    assert everything.all()


def test_an_image_of_one_network_pixel_has_no_proposals():
    scores, deltas = network_output(1)
    assert not ours(scores, deltas, [(0.5, 0.5)])[2].any()
