"""RoIAlign against a loop over boxes, bins and samples."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import gradient

from nucleus_course.models.mask_rcnn.roi_align import roi_align
from nucleus_course.prediction.engines.roi_align_fast import crop_roi_align

STRIDES = (4, 8, 16, 32)
CHANNELS = 3


def pyramid(rng, batch=2, height=256, width=192):
    return [
        rng.normal(size=(batch, height // s, width // s, CHANNELS)).astype("float32")
        for s in STRIDES
    ]


def slow_level(box, canonical_size):
    side = np.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))
    return 2 if side == 0 else int(np.clip(np.floor(4 + np.log2(side / canonical_size)), 2, 5))


def read(feature, y, x):
    """One bilinear sample at feature coordinates (cell centres are integers); edge values repeat."""
    y, x = np.clip(y, 0, feature.shape[0] - 1), np.clip(x, 0, feature.shape[1] - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, feature.shape[0] - 1), min(x0 + 1, feature.shape[1] - 1)
    b, a = y - y0, x - x0
    top = feature[y0, x0] * (1 - a) + feature[y0, x1] * a
    bottom = feature[y1, x0] * (1 - a) + feature[y1, x1] * a
    return top * (1 - b) + bottom * b


def slow_roi_align(features, boxes, index, size, samples, canonical_size):
    out = np.zeros((len(boxes), size, size, CHANNELS))
    for m, box in enumerate(boxes.astype("float64")):
        level = slow_level(box, canonical_size) - 2
        feature, stride = features[level][index[m]].astype("float64"), STRIDES[level]
        high, wide = (box[2] - box[0]) / size, (box[3] - box[1]) / size
        for i in range(size):
            for j in range(size):
                for p in range(samples):
                    for q in range(samples):
                        y = box[0] + (i + (p + 0.5) / samples) * high
                        x = box[1] + (j + (q + 0.5) / samples) * wide
                        out[m, i, j] += (
                            read(feature, y / stride - 0.5, x / stride - 0.5) / samples**2
                        )
    return out


BOXES = np.array([
    [10.3, 20.7, 31.9, 41.2],  # small, fractional: P2
    [0, 0, 8, 8],  # the corner
    [248, 184, 256, 192],  # the other corner
    [-6.5, -3, 20, 12],  # beyond the edge
    [200, 150, 300, 250],  # far beyond it
    [3, 5, 115, 120],  # P3
    [0, 0, 224, 192],  # P3
    [0, 0, 256, 230],  # P4
    [-200, -200, 400, 400],  # P5
    [50, 60, 50.5, 60.5],  # half a pixel
    [40, 40, 40, 40],  # empty
], "float32")  # fmt: skip


def ours(features, boxes, index, size, **kwargs):
    features = [ops.convert_to_tensor(f) for f in features]
    index = ops.convert_to_tensor(np.asarray(index, "int32"))
    return ops.convert_to_numpy(
        roi_align(features, ops.convert_to_tensor(boxes), index, size, strides=STRIDES, **kwargs)
    )


@pytest.mark.parametrize("samples", [1, 2])
def test_equals_the_loop(samples):
    features = pyramid(np.random.default_rng(0))
    index = np.arange(len(BOXES)) % 2
    assert {slow_level(b, 224.0) for b in BOXES} == {2, 3, 4, 5}
    found = ours(features, BOXES, index, 5, samples=samples)
    np.testing.assert_allclose(
        found, slow_roi_align(features, BOXES, index, 5, samples, 224.0), atol=2e-5
    )


def test_canonical_size_moves_the_levels():
    features = pyramid(np.random.default_rng(1))
    index = np.ones(len(BOXES), int)
    found = ours(features, BOXES, index, 2, samples=1, canonical_size=60.0)
    np.testing.assert_allclose(found, slow_roi_align(features, BOXES, index, 2, 1, 60.0), atol=2e-5)


def test_fourteen_averaged_in_twos_is_seven_at_two_by_two_samples():
    features = pyramid(np.random.default_rng(2))
    index = np.arange(len(BOXES)) % 2
    fourteen = ours(features, BOXES, index, 14, samples=1)
    averaged = fourteen.reshape(len(BOXES), 7, 2, 7, 2, CHANNELS).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged, ours(features, BOXES, index, 7, samples=2), atol=1e-5)


def test_a_linear_ramp_is_read_exactly():
    """Half-pixel centres: on a map that holds each cell's centre in pixels, a bin reads its own centre."""
    features = [
        np.stack(
            np.broadcast_arrays(
                (np.arange(256 // s)[:, None] + 0.5) * s, (np.arange(192 // s) + 0.5) * s, 0.0
            ),
            -1,
        )
        for s in STRIDES
    ]
    features = [f[None].astype("float32") for f in features]
    box = np.array([[40.25, 30.5, 61.25, 58.5]], "float32")
    crop = ours(features, box, [0], 7)[0]
    np.testing.assert_allclose(
        crop[..., 0], np.broadcast_to((40.25 + 1.5 + 3 * np.arange(7))[:, None], (7, 7)), atol=1e-4
    )
    np.testing.assert_allclose(
        crop[..., 1], np.broadcast_to(30.5 + 2 + 4 * np.arange(7), (7, 7)), atol=1e-4
    )


def test_gradient_flows_to_the_features_and_adds_up():
    rng = np.random.default_rng(3)
    features = [f[:1] for f in pyramid(rng, height=64, width=64)]
    box = ops.convert_to_tensor(np.array([[10, 12, 30, 40]], "float32"))
    index = ops.zeros(1, "int32")
    rest = [ops.convert_to_tensor(f) for f in features[1:]]
    found = gradient(
        lambda x: roi_align([x, *rest], box, index, 4, strides=STRIDES, samples=2), features[0]
    )
    # The weights of each bilinear sample sum to 1: 4 x 4 bins of CHANNELS in all.
    np.testing.assert_allclose(found.sum(), 16 * CHANNELS, rtol=1e-5)
    assert (found >= 0).all() and (found[0, 3:7, 3:9] > 0).all() and not found[0, 9:].any()


def test_no_boxes():
    features = pyramid(np.random.default_rng(4), batch=1)
    assert ours(features, np.zeros((0, 4), "float32"), np.zeros(0), 7, samples=2).shape == (
        0,
        7,
        7,
        CHANNELS,
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the one kernel is TensorFlow's"
)
@pytest.mark.parametrize(("size", "samples"), [(7, 2), (5, 1)])
def test_the_one_kernel_equals_the_loop(size, samples):
    features = pyramid(np.random.default_rng(5))
    boxes = np.concatenate(
        [
            BOXES,
            [
                [0, 0, 256, 192],
                [0, 0, 0, 0],
                [255, 191, 256, 192],
                [100, 3, 101, 190],
                [20, 21, 61, 60],
            ],
        ]
    ).astype("float32")
    index = np.arange(len(boxes)) % 2
    tensors = [ops.convert_to_tensor(f) for f in features]
    found = crop_roi_align(
        tensors, ops.convert_to_tensor(boxes), ops.convert_to_tensor(index.astype("int32")), size,
        strides=STRIDES, samples=samples, canonical_size=60.0, beyond=True,
    )  # fmt: skip
    assert {slow_level(b, 60.0) for b in boxes} == {2, 3, 4, 5}
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        slow_roi_align(features, boxes, index, size, samples, 60.0),
        atol=1e-3,
    )
