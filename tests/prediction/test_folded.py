"""Prediction's shortcuts give what the layers give: BatchNorm folded, the mask's doubling as a matrix product."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import random_boxes, tiny_config

from nucleus_course.models.mask_rcnn.proposals import run_rpn
from nucleus_course.prediction.engines.folded import fold, run_folded
from nucleus_course.prediction.segmenter import MaskRCNN

NORMS = keras.layers.BatchNormalization


def shaken(config, **options):
    """A model whose BatchNorm statistics and biases are not those of the first day."""
    model = MaskRCNN(config, seed=2, **options)
    rng = np.random.default_rng(5)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def image(height=64, width=96):
    return np.random.default_rng(0).normal(size=(1, height, width, 3)).astype("float32")


def assert_close(found, expected, tolerance):
    found, expected = (
        np.asarray(ops.convert_to_numpy(ops.cast(v, "float32"))) for v in (found, expected)
    )
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1.0, np.abs(expected).max()))


def test_fold_by_hand():
    """A 1x1 convolution of one channel: 3 x + 1, then 2 (y - 4) / sqrt(8 + 1) + 5."""
    norm = NORMS(epsilon=1.0)
    norm.build((None, 1))
    for variable, value in (
        (norm.gamma, 2.0),
        (norm.beta, 5.0),
        (norm.moving_mean, 4.0),
        (norm.moving_variance, 8.0),
    ):
        variable.assign([value])
    kernel, bias = fold(np.array([[3.0]], "float32"), np.array([1.0], "float32"), norm)
    assert_close(kernel, np.array([[2.0]]), 1e-6)
    assert_close(bias, np.array([3.0]), 1e-6)
    assert_close(fold(np.array([[3.0]], "float32"), None, norm)[1], np.array([7 / 3]), 1e-6)


@pytest.mark.parametrize("backbone", ["thin", "resnet50"])
def test_trunk_and_pyramid(backbone, monkeypatch):
    from nucleus_course.models.mask_rcnn import backbone as trunks

    monkeypatch.setitem(trunks.BLOCKS, "resnet50", (1, 1, 1, 1))
    model = shaken(
        tiny_config(
            backbone=backbone,
            strides=(2, 4, 8, 16, 32) if backbone == "thin" else (4, 8, 16, 32, 64),
        )
    )
    x = ops.convert_to_tensor(image(64, 128))
    stages = model.backbone(x, training=False)
    for found, expected in zip(run_folded(model.backbone, x), stages):
        assert_close(found, expected, 1e-5)
    for found, expected in zip(model.features(x, fast=True), model.features(x)):
        assert_close(found, expected, 1e-5)


def test_weights_of_today():
    """Folding does not keep what a layer was."""
    model = shaken(tiny_config())
    x = ops.convert_to_tensor(image())
    before = ops.convert_to_numpy(model.features(x, fast=True)[0])
    norm = next(layer for layer in model.backbone.layers if isinstance(layer, NORMS))
    norm.gamma.assign(3.0 * norm.gamma)
    assert np.abs(ops.convert_to_numpy(model.features(x, fast=True)[0]) - before).max() > 1e-3
    assert_close(model.features(x, fast=True)[0], model.features(x)[0], 1e-5)


def test_rpn():
    model = shaken(tiny_config(anchor_ratios=(0.5, 1.0, 2.0)))
    pyramid = model.features(ops.convert_to_tensor(image()))
    for found, expected in zip(run_rpn(model.rpn, pyramid, fast=True), run_rpn(model.rpn, pyramid)):
        assert np.ptp(ops.convert_to_numpy(expected)) > 0.1
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("norm", [False, True])
def test_masks(norm, scale):
    model = shaken(tiny_config(head_norm=norm, mask_roi_scale=scale))
    pyramid = model.features(ops.convert_to_tensor(image()))
    boxes, index = (
        ops.convert_to_tensor(random_boxes(np.random.default_rng(3), 7, 64, 96)),
        ops.zeros(7, "int32"),
    )
    expected = model.mask_logits(pyramid, boxes, index)
    found = model.mask_logits(pyramid, boxes, index, fast=True)
    assert np.ptp(ops.convert_to_numpy(expected)) > 0.1
    assert_close(found, expected, 1e-4)


def test_half_precision():
    """Both round to eight bits, each at its own places; what comes out has the layers' dtypes."""
    model = shaken(tiny_config(), dtype_policy="mixed_bfloat16")
    x = ops.convert_to_tensor(image())
    pyramid, fast = model.features(x), model.features(x, fast=True)
    assert fast[0].dtype == pyramid[0].dtype
    assert_close(fast[0], pyramid[0], 0.05)
    boxes, index = (
        ops.convert_to_tensor(random_boxes(np.random.default_rng(3), 7, 64, 96)),
        ops.zeros(7, "int32"),
    )
    found = model.mask_logits(pyramid, boxes, index, fast=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert_close(found, model.mask_logits(pyramid, boxes, index), 0.05)
