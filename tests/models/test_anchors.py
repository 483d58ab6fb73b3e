"""Anchors in closed form."""

import numpy as np
import pytest

from nucleus_course.models.mask_rcnn.anchors import anchor_count, level_shapes, pyramid_anchors
from nucleus_course.presets import PRESETS


@pytest.mark.parametrize("preset", ["paper-resnet50", "paper-resnet101", "compact"])
@pytest.mark.parametrize("size", [(512, 512), (256, 320), (64, 128)])
def test_every_anchor_is_where_the_formula_says(preset, size):
    c = PRESETS[preset].model
    anchors = pyramid_anchors(*size, c.strides, c.anchor_sizes, c.anchor_ratios)
    assert anchors.dtype == np.float32 and anchors.shape == (
        anchor_count(*size, c.strides, c.anchor_ratios),
        4,
    )
    number = 0
    for stride, side in zip(c.strides, c.anchor_sizes):
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        block = anchors[number : number + rows * columns * len(c.anchor_ratios)]
        block = block.reshape(rows, columns, len(c.anchor_ratios), 4).astype("float64")
        number += rows * columns * len(c.anchor_ratios)
        centre = 0.5 * (block[..., :2] + block[..., 2:])
        y, x = (np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride
        np.testing.assert_allclose(
            centre[..., 0], np.broadcast_to(y[:, None, None], centre.shape[:3]), atol=1e-4
        )
        np.testing.assert_allclose(
            centre[..., 1], np.broadcast_to(x[None, :, None], centre.shape[:3]), atol=1e-4
        )
        height, width = np.moveaxis(block[..., 2:] - block[..., :2], -1, 0)
        np.testing.assert_allclose(height * width, side * side, rtol=1e-4)
        np.testing.assert_allclose(
            height / width, np.broadcast_to(c.anchor_ratios, height.shape), rtol=1e-4
        )
    assert number == len(anchors)


def test_the_papers_count():
    """512 x 512: (128² + 64² + 32² + 16² + 8²) cells of three anchors, 65,472 as in Matterport's nucleus sample."""
    c = PRESETS["paper-resnet50"].model
    assert (
        anchor_count(512, 512, c.strides, c.anchor_ratios)
        == 3 * (128**2 + 64**2 + 32**2 + 16**2 + 8**2)
        == 65472
    )


def test_odd_sizes_round_up_as_same_padding_does():
    assert level_shapes(65, 130, (2, 4, 64)) == ((33, 65), (17, 33), (2, 3))


def test_misuse_is_caught():
    anchors = pyramid_anchors(64, 64, (4, 8), (8, 16), (1.0,))
    with pytest.raises(ValueError, match="read-only"):
        anchors[0] = 0  # shared by all callers with this size
    with pytest.raises(ValueError, match="2 strides but 1 anchor sizes"):
        pyramid_anchors(64, 64, (4, 8), (8,), (1.0,))
