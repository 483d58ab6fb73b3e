"""A perfect mask through a 28 x 28 target and back: what the geometry costs, before any learning."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.data.preprocess import resize
from nucleus_course.geometry.boxes import dilate
from nucleus_course.models.mask_rcnn.targets import mask_targets
from nucleus_course.prediction.detections import Detections
from nucleus_course.presets import get_preset

CANVAS = 256
ACROSS = np.geomspace(13, 200, 24)  # pixels


def ellipses(seed=0):
    """Label maps (24, 256, 256), one ellipse each, turned and placed at random, ``ACROSS`` pixels in geometric mean."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:CANVAS, :CANVAS] + 0.5
    labels = []
    for across in ACROSS:
        stretch, angle = np.exp(rng.uniform(0, 0.2)), rng.uniform(0, np.pi)
        cy, cx = CANVAS / 2 + rng.uniform(-1, 1, 2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        labels.append(
            ((2 * u / (across * stretch)) ** 2 + (2 * v * stretch / across) ** 2 < 1).astype(
                "int32"
            )
        )
    return np.stack(labels)


def round_trip(config, seed=0):
    """IoU of each ellipse with itself after its way through network pixels, target and paste."""
    labels = ellipses(seed)
    boxes = np.concatenate([boxes_from_labels(one)[1] for one in labels]) * np.float32(
        config.upsample
    )
    network = (
        np.stack([resize(one, config.upsample) for one in labels])
        if config.upsample != 1
        else labels
    )
    np.testing.assert_array_equal(
        np.concatenate([boxes_from_labels(one)[1] for one in network]), boxes
    )
    index = np.arange(len(labels), dtype="int32")
    arrays = [ops.convert_to_tensor(a) for a in (network, boxes, index, np.ones_like(index))]
    probs = ops.convert_to_numpy(mask_targets(*arrays, config))
    grid = dilate(boxes, config.mask_roi_scale) / config.upsample
    found = Detections(
        boxes / config.upsample, np.ones(len(index)), probs, grid, CANVAS, CANVAS
    ).masks
    truth = labels > 0
    return (found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))


@pytest.mark.parametrize("preset", ["paper-resnet50", "compact"])
def test_mean_iou_of_the_round_trip(preset):
    iou = np.concatenate([round_trip(get_preset(preset).model, seed) for seed in (0, 1)])
    assert iou.mean() >= 0.975, f"{preset}: mean {iou.mean():.4f}, least {iou.min():.4f}"
    assert iou.min() >= 0.96, f"{preset}: least {iou.min():.4f}"


def test_more_samples_a_cell_do_better():
    config = get_preset("paper-resnet50").model
    one, two = (round_trip(dataclasses.replace(config, mask_samples=n)).mean() for n in (1, 2))
    assert two > one
