"""Winograd's convolution against the direct one."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import tiny_config

from nucleus_course.models.mask_rcnn.heads import MaskHead
from nucleus_course.prediction.engines import winograd
from nucleus_course.prediction.engines.keras_fast import nucleus_logits


@pytest.mark.parametrize("side", [1, 3, 4, 7, 14, 18])
def test_convolution_equals_the_direct_one(side):
    rng = np.random.default_rng(side)
    x = rng.normal(size=(3, side, side, 5)).astype("float32")
    kernel = rng.normal(size=(3, 3, 5, 6)).astype("float32")
    found = winograd.convolve_3x3(
        ops.convert_to_tensor(x), winograd.transform_kernel(ops.convert_to_tensor(kernel))
    )
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype("float64")
    direct = sum(
        padded[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), direct, atol=3e-5 * np.abs(direct).max()
    )


def test_an_axis_alone_in_whole_numbers():
    """One tile of a signal, one kernel: the sums and products give the correlation exactly."""
    split, join = winograd.axis_transforms(4)
    signal, kernel = np.array([3.0, -1, 4, 2]), np.array([1.0, 5, -2])
    got = join @ ((split @ signal) * (winograd._KERNEL @ kernel))
    np.testing.assert_allclose(got, np.correlate(np.pad(signal, 1), kernel, "valid"), rtol=1e-6)


@pytest.mark.parametrize("norm", [True, False])
def test_the_mask_head_gives_the_same_masks_this_way(norm, monkeypatch):
    """Any number of boxes: less than a chunk, exactly one, more."""
    head = MaskHead(tiny_config(pyramid_channels=12, mask_head_channels=12, head_norm=norm))
    head.build()
    rng = np.random.default_rng(0)
    for variable in head.variables:
        values = rng.normal(size=variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else 0.3 * values)
    for count in (1, 15, 16, 17, 33):
        pooled = ops.convert_to_tensor(rng.normal(size=(count, 14, 14, 12)).astype("float32"))
        plain = ops.convert_to_numpy(nucleus_logits(head, pooled))
        slow = ops.convert_to_numpy(head(pooled)[..., 1])
        monkeypatch.setattr(winograd, "pays", lambda layers: True)
        other = ops.convert_to_numpy(nucleus_logits(head, pooled))
        monkeypatch.undo()
        assert other.shape == (count, 28, 28)
        for found in (plain, other):
            np.testing.assert_allclose(found, slow, atol=2e-5 * np.abs(slow).max())


def test_where_it_pays():
    def layers(filters, dtype):
        return [keras.layers.Conv2D(filters, 3, dtype=dtype)]

    import tensorflow as tf

    on_cpu = keras.backend.backend() == "tensorflow" and not tf.config.list_physical_devices("GPU")
    assert winograd.pays(layers(256, "float32")) == on_cpu
    assert not winograd.pays(layers(256, "mixed_bfloat16")) and not winograd.pays(
        layers(64, "float32")
    )
