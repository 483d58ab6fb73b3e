"""Prediction's shortcuts agree with the layers: folded BatchNorm, the mask's upsampling as a matrix product."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import lively_model, random_boxes, tiny_config

from nucleus_course.geometry.boxes import dilate
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.prediction.engines.folded import fold, run_folded
from nucleus_course.prediction.engines.keras_fast import (
    MASK_BUCKETS,
    MASK_CHUNK,
    FastForward,
    run_mask_head,
)

NORMS = keras.layers.BatchNormalization


def shaken(config, **options):
    """A network whose BatchNorm statistics and biases differ from their initial values."""
    network = MaskRCNNNetwork(config, seed=2, **options)
    rng = np.random.default_rng(5)
    for variable in network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return network


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
    strides = (2, 4, 8, 16, 32) if backbone == "thin" else (4, 8, 16, 32, 64)
    network = shaken(tiny_config(backbone=backbone, strides=strides))
    x = ops.convert_to_tensor(image(64, 128))
    stages = network.backbone(x, training=False)
    for found, expected in zip(run_folded(network.backbone, x), stages):
        assert_close(found, expected, 1e-5)
    for found, expected in zip(FastForward(network).features(x), network.features(x)):
        assert_close(found, expected, 1e-5)


def test_weights_of_today():
    """Folding uses the layers' present values."""
    network = shaken(tiny_config())
    x = ops.convert_to_tensor(image())
    fast = FastForward(network)
    before = ops.convert_to_numpy(fast.features(x)[0])
    norm = next(layer for layer in network.backbone.layers if isinstance(layer, NORMS))
    norm.gamma.assign(3.0 * norm.gamma)
    assert np.abs(ops.convert_to_numpy(fast.features(x)[0]) - before).max() > 1e-3
    assert_close(fast.features(x)[0], network.features(x)[0], 1e-5)


def test_rpn():
    network = shaken(tiny_config(anchor_ratios=(0.5, 1.0, 2.0)))
    pyramid = network.features(ops.convert_to_tensor(image()))
    for found, expected in zip(
        FastForward(network).rpn_outputs(pyramid), network.rpn_outputs(pyramid)
    ):
        assert np.ptp(ops.convert_to_numpy(expected)) > 0.1
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize(("size", "samples", "beyond"), [(7, 2, False), (14, 1, True)])
def test_pooling(size, samples, beyond):
    network = shaken(tiny_config())
    pyramid = network.features(ops.convert_to_tensor(image()))
    boxes = random_boxes(np.random.default_rng(3), 7, 64, 96)
    if beyond:
        boxes = dilate(boxes, 1.4)
    arguments = pyramid, ops.convert_to_tensor(boxes), ops.zeros(7, "int32"), size, samples
    assert_close(
        FastForward(network).pool(*arguments, beyond=beyond), network.pool(*arguments), 1e-4
    )


def test_candidates():
    """Proposals, two passes of the box head and the order by score: all that the pipeline needs."""
    network = lively_model().network
    arguments = ops.convert_to_tensor(image()), ops.convert_to_tensor([[60.0, 90.0]])
    pyramid, boxes, scores = FastForward(network).candidates(*arguments)
    expected = network.candidates(*arguments)
    for found, level in zip(pyramid, expected[0]):
        assert_close(found, level, 1e-5)
    assert ops.convert_to_numpy(scores).max() > 0.1
    assert_close(boxes, expected[1], 1e-4)
    assert_close(scores, expected[2], 1e-4)


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("norm", [False, True])
def test_masks(norm, scale):
    network = shaken(tiny_config(head_norm=norm, mask_roi_scale=scale))
    pyramid = network.features(ops.convert_to_tensor(image()))
    boxes = ops.convert_to_tensor(random_boxes(np.random.default_rng(3), 7, 64, 96))
    index = ops.zeros(7, "int32")
    expected = network.mask_logits(pyramid, boxes, index)
    found = FastForward(network).mask_logits(pyramid, boxes, index)
    assert np.ptp(ops.convert_to_numpy(expected)) > 0.1
    assert_close(found, expected, 1e-4)


@pytest.mark.parametrize("count", [1, 16, 17, MASK_CHUNK, MASK_CHUNK + 1, 3 * MASK_CHUNK - 5])
@pytest.mark.parametrize("fixed", [False, True])
def test_the_mask_head_sees_a_part_at_a_time(count, fixed):
    """Each row comes back once, in order; with fixed lengths only few are ever asked for."""
    asked = []

    def head(rows, index):
        asked.append(len(rows))
        return ops.convert_to_tensor(rows[:, :1, None] + index[:, None, None])

    rows = np.random.default_rng(5).random((count, 4)).astype("float32")
    index = np.arange(count, dtype="float32")
    found = run_mask_head(head, (rows, index), fixed)
    np.testing.assert_allclose(found, rows[:, :1, None] + index[:, None, None], rtol=1e-6)
    assert max(asked) <= MASK_CHUNK
    assert not fixed or set(asked) <= set(MASK_BUCKETS)


def test_half_precision():
    """Both round to eight bits, but at different points; outputs have the layers' dtypes."""
    network = shaken(tiny_config(), dtype_policy="mixed_bfloat16")
    x = ops.convert_to_tensor(image())
    fast = FastForward(network)
    pyramid, folded = network.features(x), fast.features(x)
    assert folded[0].dtype == pyramid[0].dtype
    assert_close(folded[0], pyramid[0], 0.05)
    boxes = ops.convert_to_tensor(random_boxes(np.random.default_rng(3), 7, 64, 96))
    index = ops.zeros(7, "int32")
    found = fast.mask_logits(pyramid, boxes, index)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert_close(found, network.mask_logits(pyramid, boxes, index), 0.05)
