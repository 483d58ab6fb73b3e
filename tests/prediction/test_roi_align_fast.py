"""RoIAlign in one kernel: the same crops as the plain one, on TensorFlow."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import random_boxes

from nucleus_course.models.mask_rcnn.roi_align import roi_align
from nucleus_course.prediction.engines.roi_align_fast import crop_roi_align

STRIDES = (4, 8, 16, 32)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's"
)


def pyramid(rng, height=160, width=224, channels=5):
    return [
        rng.normal(size=(2, -(-height // s), -(-width // s), channels)).astype("float32")
        for s in STRIDES
    ]


@pytest.mark.parametrize("canonical_size", [224.0, 56.0])
@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize(("size", "samples"), [(7, 2), (14, 1)])
def test_same_crops_as_the_plain_one(size, samples, beyond, canonical_size):
    """Two images, all levels; boxes of every size, at the edge, beyond it where allowed, of one pixel and empty."""
    rng = np.random.default_rng(1)
    features = [ops.convert_to_tensor(f) for f in pyramid(rng)]
    over = [[-20, -9, 30, 40], [140, 100, 171, 260], [-300, -300, 500, 500]] if beyond else []
    rim = [[159, 223, 160, 224], [150, 0, 160, 200]]
    odd = over + [[0, 0, 160, 224], [0, 0, 0, 0], *rim, [3, 3, 3, 9]]
    boxes = np.concatenate([random_boxes(rng, 80, 160, 224, 1, 160), np.array(odd, "float32")])
    index = rng.integers(0, 2, len(boxes)).astype("int32")
    arguments = ops.convert_to_tensor(boxes), ops.convert_to_tensor(index), size
    options = {"strides": STRIDES, "samples": samples, "canonical_size": canonical_size}
    expected = np.asarray(roi_align(features, *arguments, **options))
    got = np.asarray(crop_roi_align(features, *arguments, **options, beyond=beyond))
    assert got.shape == (len(boxes), size, size, 5)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_no_box_at_all_and_none_that_is_inside():
    features = [ops.convert_to_tensor(f) for f in pyramid(np.random.default_rng(3))]
    for boxes in (np.zeros((0, 4), "float32"), np.array([[-50, -50, 9, 9]], "float32")):
        arguments = ops.convert_to_tensor(boxes), ops.zeros(len(boxes), "int32"), 7
        got = np.asarray(crop_roi_align(features, *arguments, strides=STRIDES, beyond=True))
        assert got.shape == (len(boxes), 7, 7, 5)
        np.testing.assert_allclose(
            got, np.asarray(roi_align(features, *arguments, strides=STRIDES)), atol=1e-4
        )


def test_half_precision_comes_back_as_it_went_in():
    rng = np.random.default_rng(2)
    features = [ops.cast(ops.convert_to_tensor(f), "bfloat16") for f in pyramid(rng)]
    boxes, index = ops.convert_to_tensor(random_boxes(rng, 9, 160, 224)), ops.zeros(9, "int32")
    got = crop_roi_align(features, boxes, index, 7, strides=STRIDES, samples=2)
    expected = roi_align(features, boxes, index, 7, strides=STRIDES, samples=2)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(got, "float32")),
        ops.convert_to_numpy(ops.cast(expected, "float32")),
        atol=0.05,
    )
