"""The losses by hand on three boxes."""

import math

import numpy as np
import pytest
from keras import ops

from nucleus_course.models.mask_rcnn import losses


def tensor(values, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(values, dtype))


def test_cross_entropy_on_three_boxes():
    logits = tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]])
    labels = tensor([1, 0, 1], "int32")
    # -log softmax of the right class
    each = [math.log(1 + math.exp(-2)), math.log(2), math.log(1 + math.exp(3))]
    value = float(losses.cross_entropy(logits, labels, tensor([1, 1, 1])))
    assert value == pytest.approx(sum(each) / 3, rel=1e-6)
    assert float(losses.cross_entropy(logits, labels, tensor([1, 0, 1]))) == pytest.approx(
        (each[0] + each[2]) / 2, rel=1e-6
    )


def test_cross_entropy_of_large_logits_is_finite():
    value = float(
        losses.cross_entropy(tensor([[200.0, -200.0]]), tensor([1], "int32"), tensor([1]))
    )
    assert value == pytest.approx(400.0)


def test_smooth_l1_on_three_boxes():
    target = np.zeros((3, 4), "float32")
    predicted = np.array([[0.5, -0.5, 0, 0], [2.0, 0, 0, 0], [9, 9, 9, 9]], "float32")
    first = (0.125 + 0.125) / 4  # quadratic: d² / 2
    second = (2.0 - 0.5) / 4  # linear: d - 1 / 2
    value = float(losses.smooth_l1(tensor(predicted), tensor(target), tensor([1, 1, 0])))
    assert value == pytest.approx((first + second) / 2, rel=1e-6)


def test_smooth_l1_turns_linear_at_beta():
    value = float(
        losses.smooth_l1(
            tensor([[0.05, 0.1, 0.3, -1.0]]), tensor([[0, 0, 0, 0]]), tensor([1]), beta=0.1
        )
    )
    assert value == pytest.approx((0.05**2 / 0.2 + 0.05 + 0.25 + 0.95) / 4, rel=1e-5)


def test_mask_cross_entropy_on_three_boxes():
    logits = np.array(
        [[[0.0, 2.0], [-1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]], "float32"
    )
    target = np.array(
        [[[1.0, 1.0], [0.0, 0.25]], [[0.0, 1.0], [0.5, 1.0]], [[0.0] * 2] * 2], "float32"
    )

    def cell(x, t):
        p = 1 / (1 + math.exp(-x))
        return -t * math.log(p) - (1 - t) * math.log(1 - p)

    each = [
        np.mean([cell(x, t) for x, t in zip(a.ravel(), b.ravel())]) for a, b in zip(logits, target)
    ]
    value = float(losses.mask_cross_entropy(tensor(logits), tensor(target), tensor([1, 1, 0])))
    assert value == pytest.approx((each[0] + each[1]) / 2, rel=1e-5)


def test_an_empty_batch_is_zero_not_nan():
    none = tensor([0, 0, 0])
    assert (
        float(losses.cross_entropy(tensor(np.ones((3, 2))), tensor([0, 1, 0], "int32"), none)) == 0
    )
    assert float(losses.smooth_l1(tensor(np.ones((3, 4))), tensor(np.zeros((3, 4))), none)) == 0
    assert (
        float(
            losses.mask_cross_entropy(tensor(np.ones((3, 2, 2))), tensor(np.zeros((3, 2, 2))), none)
        )
        == 0
    )
