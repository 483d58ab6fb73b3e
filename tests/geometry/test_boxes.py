"""Box geometry against loops, pycocotools and numbers worked out by hand."""

import numpy as np
import pytest
from keras import ops
from pycocotools import mask as coco
from tiny import random_boxes

from nucleus_course.geometry import boxes as geometry

STDS = (0.1, 0.1, 0.2, 0.2)


def numpy(x):
    return ops.convert_to_numpy(x)


def slow_iou(a, b):
    out = np.zeros((len(a), len(b)))
    for i, (ay1, ax1, ay2, ax2) in enumerate(a.astype("float64")):
        for j, (by1, bx1, by2, bx2) in enumerate(b.astype("float64")):
            overlap = max(0, min(ay2, by2) - max(ay1, by1)) * max(0, min(ax2, bx2) - max(ax1, bx1))
            union = (ay2 - ay1) * (ax2 - ax1) + (by2 - by1) * (bx2 - bx1) - overlap
            out[i, j] = overlap / union if union > 0 else 0
    return out


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    return random_boxes(rng, 40, 100, 120), random_boxes(rng, 30, 100, 120)


def test_iou_is_that_of_a_loop_and_of_pycocotools(pair):
    a, b = pair
    ours = numpy(geometry.iou_matrix(ops.convert_to_tensor(a), ops.convert_to_tensor(b)))

    def xywh(boxes):
        y1, x1, y2, x2 = boxes.astype("float64").T
        return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)

    np.testing.assert_allclose(ours, slow_iou(a, b), atol=1e-5)
    np.testing.assert_allclose(ours, coco.iou(xywh(a), xywh(b), [0] * len(b)), atol=1e-5)
    np.testing.assert_allclose(geometry.iou_matrix(a, b), ours, atol=1e-5)


def test_iou_has_batch_axes_and_is_zero_for_empty_boxes(pair):
    a, b = (v[:30] for v in pair)
    stacked = numpy(
        geometry.iou_matrix(
            ops.convert_to_tensor(np.stack([a, b])), ops.convert_to_tensor(np.stack([b, a]))
        )
    )
    np.testing.assert_allclose(stacked, np.stack([slow_iou(a, b), slow_iou(b, a)]), atol=1e-5)
    empty = np.zeros((2, 4), "float32")
    assert (
        numpy(geometry.iou_matrix(ops.convert_to_tensor(empty), ops.convert_to_tensor(empty))).max()
        == 0
    )
    inverted = np.array([[5, 5, 1, 1]], "float32")
    assert numpy(geometry.area(ops.convert_to_tensor(inverted))) == 0


def test_iou_by_hand():
    a = ops.convert_to_tensor(np.array([[0, 0, 10, 10]], "float32"))
    b = ops.convert_to_tensor(
        np.array([[0, 5, 10, 15], [0, 0, 10, 10], [10, 0, 20, 10], [2, 2, 4, 7]], "float32")
    )
    np.testing.assert_allclose(
        numpy(geometry.iou_matrix(a, b))[0], [50 / 150, 1, 0, 10 / 100], rtol=1e-6
    )


def test_coding_round_trip(pair):
    a, b = (ops.convert_to_tensor(v[:30]) for v in pair)
    deltas = geometry.encode(a, b, STDS)
    np.testing.assert_allclose(numpy(geometry.decode(deltas, b, STDS)), numpy(a), atol=1e-3)


def test_coding_by_hand():
    # centre (20, 40), 20 high, 40 wide
    anchor = ops.convert_to_tensor(np.array([[10, 20, 30, 60]], "float32"))
    # centre (34, 32), 40 high, 20 wide
    box = ops.convert_to_tensor(np.array([[14, 22, 54, 42]], "float32"))
    expected = [0.7 / 0.1, -0.2 / 0.1, np.log(2) / 0.2, np.log(0.5) / 0.2]
    np.testing.assert_allclose(numpy(geometry.encode(box, anchor, STDS))[0], expected, rtol=1e-5)
    nothing = ops.zeros((1, 4))
    np.testing.assert_allclose(
        numpy(geometry.decode(nothing, anchor, STDS)), numpy(anchor), rtol=1e-6
    )


def test_coding_stays_finite():
    empty = ops.zeros((1, 4))
    anchor = ops.convert_to_tensor(np.array([[0, 0, 8, 8]], "float32"))
    assert np.isfinite(numpy(geometry.encode(empty, anchor, STDS))).all()
    assert np.isfinite(numpy(geometry.encode(anchor, empty, STDS))).all()
    huge = numpy(
        geometry.decode(ops.convert_to_tensor(np.full((1, 4), 1e6, "float32")), anchor, STDS)
    )
    size = huge[0, 2:] - huge[0, :2]
    assert np.isfinite(huge).all() and (size <= 8 * 1000 / 16 * 1.01).all()


def test_clip_to_numbers_and_to_one_window_an_image():
    boxes = np.array(
        [[[-5, -1, 7, 200], [3, 4, 5, 6]], [[-5, -1, 7, 200], [90, 3, 101, 9]]], "float32"
    )
    tensor = ops.convert_to_tensor(boxes)
    np.testing.assert_array_equal(numpy(geometry.clip(tensor, 6, 50))[0, 0], [0, 0, 6, 50])
    window = ops.convert_to_tensor(np.array([[6, 50], [100, 150]], "float32"))
    clipped = numpy(geometry.clip(tensor, window[:, 0:1], window[:, 1:2]))
    np.testing.assert_array_equal(
        clipped, [[[0, 0, 6, 50], [3, 4, 5, 6]], [[0, 0, 7, 150], [90, 3, 100, 9]]]
    )


def test_dilate():
    boxes = np.array([[10, 20, 30, 60]], "float32")
    np.testing.assert_allclose(
        numpy(geometry.dilate(ops.convert_to_tensor(boxes), 1.2)), [[8, 16, 32, 64]], rtol=1e-6
    )
    np.testing.assert_allclose(geometry.dilate(boxes, 1.2), [[8, 16, 32, 64]], rtol=1e-6)
    np.testing.assert_array_equal(numpy(geometry.dilate(ops.convert_to_tensor(boxes), 1.0)), boxes)


@pytest.mark.parametrize(
    ("side", "level"),
    [
        (1, 2),
        (55.9, 2),
        (56, 2),
        (111.99, 2),
        (112, 3),
        (223.99, 3),
        (224, 4),
        (447.9, 4),
        (448, 5),
        (5000, 5),
        (0, 2),
    ],
)
def test_level_rule(side, level):
    box = ops.convert_to_tensor(np.array([[3, 5, 3 + side, 5 + side]], "float32"))
    assert numpy(geometry.pyramid_level(box))[0] == level
    assert (
        numpy(
            geometry.pyramid_level(
                ops.convert_to_tensor(np.array([[0, 0, side / 2, side * 2]], "float32"))
            )
        )[0]
        == level
    )


def test_level_rule_scales_with_the_canonical_size():
    sides = np.array([20, 27.9, 28, 55.9, 56, 111.9, 112, 223.9, 224, 600], "float32")
    boxes = ops.convert_to_tensor(np.stack([0 * sides, 0 * sides, sides, sides], axis=1))
    doubled = ops.convert_to_tensor(np.stack([0 * sides, 0 * sides, 2 * sides, 2 * sides], axis=1))
    native = numpy(geometry.pyramid_level(boxes, 112.0))
    np.testing.assert_array_equal(native, [2, 2, 2, 2, 3, 3, 4, 4, 5, 5])
    np.testing.assert_array_equal(native, numpy(geometry.pyramid_level(doubled, 224.0)))


def test_numpy_goes_in_and_comes_out():
    """Every function of boxes, in NumPy and in tensors: the same numbers, each in its own kind."""
    rng = np.random.default_rng(6)
    a, b = random_boxes(rng, 9, 90, 70), random_boxes(rng, 9, 90, 70)
    for call in (
        geometry.area,
        lambda a: geometry.iou_matrix(a, a[:4]),
        lambda a: geometry.clip(a, 40.0, 50.0),
        lambda a: geometry.dilate(a, 1.3),
        lambda a: geometry.pyramid_level(a, 60.0),
        lambda a: geometry.encode(a, a[::-1], STDS),
        lambda a: geometry.decode(a / 100, a[::-1], STDS),
    ):
        plain, tensor = call(a), call(ops.convert_to_tensor(a))
        assert isinstance(plain, np.ndarray) and not isinstance(tensor, np.ndarray)
        np.testing.assert_allclose(plain, numpy(tensor), rtol=1e-5, atol=1e-4)
        assert plain.dtype == numpy(tensor).dtype
    mixed = geometry.encode(ops.convert_to_tensor(a), b, STDS)
    np.testing.assert_allclose(numpy(mixed), geometry.encode(a, b, STDS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_greedy_nms_by_a_loop(threshold):
    rng = np.random.default_rng(8)
    boxes = random_boxes(rng, 120, 60, 60, 5, 25)
    boxes[7, 2] = boxes[7, 0] + 0.5  # less than a pixel high
    scores = np.sort(rng.uniform(0, 1, 120).astype("float32"))[::-1].copy()
    scores[110:] = -1  # padding
    iou, expected = slow_iou(boxes, boxes), []
    for i in range(110):
        if i != 7 and all(iou[i, kept] <= threshold for kept in expected):
            expected.append(i)
    assert 10 < len(expected) < 100
    assert geometry.greedy_nms(boxes, scores, threshold).tolist() == expected
    assert geometry.greedy_nms(boxes, scores, threshold, 5).tolist() == expected[:5]
    assert geometry.greedy_nms(boxes[:0], scores[:0], threshold).shape == (0,)
