"""Mask grids against the model's own targets and pixel loops, and a perfect mask's round trip."""

import dataclasses

import numpy as np
import pytest
from fakes import ellipses
from keras import ops

from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.data.preprocess import resize
from nucleus_course.geometry.boxes import dilate
from nucleus_course.geometry.masks import mask_grids, paste, round_trip
from nucleus_course.models.mask_rcnn.targets import mask_targets
from nucleus_course.presets import get_preset

CANVAS = 256
ACROSS = np.geomspace(13, 200, 24)  # pixels


def turned_ellipses(seed=0):
    """Label maps (24, 256, 256), one random ellipse each, with a geometric mean diameter of ``ACROSS`` pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:CANVAS, :CANVAS] + 0.5
    labels = []
    for across in ACROSS:
        stretch, angle = np.exp(rng.uniform(0, 0.2)), rng.uniform(0, np.pi)
        cy, cx = CANVAS / 2 + rng.uniform(-1, 1, 2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        inside = (2 * u / (across * stretch)) ** 2 + (2 * v * stretch / across) ** 2 < 1
        labels.append(inside.astype("int32"))
    return np.stack(labels)


@pytest.mark.parametrize("scale, samples", [(1.0, 1), (1.2, 2)])
def test_grids_are_the_targets_that_the_mask_head_learns(scale, samples):
    labels = ellipses(np.random.default_rng(4), 64, 80, 12)
    ids, boxes = boxes_from_labels(labels)
    config = dataclasses.replace(
        get_preset("compact").model, mask_roi_scale=scale, mask_samples=samples
    )
    arrays = (labels[None], boxes, np.zeros(len(ids), "int32"), ids)
    expected = mask_targets(*(ops.convert_to_tensor(a) for a in arrays), config)
    found = mask_grids(labels, dilate(boxes, scale), ids, config.mask_size, samples)
    np.testing.assert_array_equal(found, ops.convert_to_numpy(expected))


def ious_of_round_trips(config, seed=0):
    """IoU of each ellipse with its round trip through network pixels, grid and paste."""
    found = []
    for labels in turned_ellipses(seed):
        network = resize(labels, config.upsample) if config.upsample != 1 else labels
        boxes = boxes_from_labels(labels)[1] * np.float32(config.upsample)
        np.testing.assert_array_equal(boxes_from_labels(network)[1], boxes)
        grown = dilate(boxes, config.mask_roi_scale)
        grids = mask_grids(network, grown, [1], config.mask_size, config.mask_samples)
        _, row, column = paste(grids, grown / config.upsample, CANVAS, CANVAS)
        shared = (labels[row, column] > 0).sum()
        found.append(shared / (len(row) + (labels > 0).sum() - shared))
    return np.array(found)


@pytest.mark.parametrize("preset", ["paper-resnet50", "compact"])
def test_mean_iou_of_the_round_trip(preset):
    iou = np.concatenate([ious_of_round_trips(get_preset(preset).model, seed) for seed in (0, 1)])
    assert iou.mean() >= 0.975, f"{preset}: mean {iou.mean():.4f}, least {iou.min():.4f}"
    assert iou.min() >= 0.96, f"{preset}: least {iou.min():.4f}"


def test_more_samples_a_cell_do_better():
    config = get_preset("paper-resnet50").model
    one, two = (
        ious_of_round_trips(dataclasses.replace(config, mask_samples=n)).mean() for n in (1, 2)
    )
    assert two > one


def test_a_mask_of_the_grids_size_comes_back_unchanged():
    mask = np.random.default_rng(0).uniform(size=(28, 28)) < 0.5
    for samples in (1, 2):
        trip = round_trip(mask, (0, 0, 28, 28), samples=samples)
        assert trip.iou == 1 and (trip.pasted == mask).all() and (trip.grid == mask).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (28, 56), (84, 5), (200, 200)])
def test_a_full_box_comes_back_full(shape):
    assert round_trip(np.ones(shape, bool), (0, 0, *shape)).iou == 1


def test_round_trip_against_a_loop():
    """The definition, one sample at a time: cells by the pixels at their points, pixels by bilinear sampling."""
    labels = ellipses(np.random.default_rng(3), 41, 23, 1, 9, 20)
    (y1, x1, y2, x2), size, samples = boxes_from_labels(labels)[1][0], 9, 2
    mask = labels > 0
    grid = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        for p, q in np.ndindex(samples, samples):
            y = y1 + (y2 - y1) * (i + (p + 0.5) / samples) / size
            x = x1 + (x2 - x1) * (j + (q + 0.5) / samples) / size
            grid[i, j] += mask[int(y), int(x)] / samples**2
    pasted = np.zeros(mask.shape)
    for r, c in np.ndindex(mask.shape):
        if not (y1 <= r + 0.5 < y2 and x1 <= c + 0.5 < x2):
            continue
        v = min(max((r + 0.5 - y1) / (y2 - y1) * size - 0.5, 0), size - 1)
        u = min(max((c + 0.5 - x1) / (x2 - x1) * size - 0.5, 0), size - 1)
        for a, b in np.ndindex(size, size):
            pasted[r, c] += max(0, 1 - abs(v - a)) * max(0, 1 - abs(u - b)) * grid[a, b]
    trip = round_trip(mask, (y1, x1, y2, x2), size, samples)
    np.testing.assert_allclose(trip.grid, grid, atol=1e-6)
    clear = np.abs(pasted - 0.5) > 1e-5  # sums of 0.5 may round either way
    assert clear.mean() > 0.98 and (trip.pasted == (pasted >= 0.5))[clear].all()
    assert trip.iou == (mask & trip.pasted).sum() / (mask | trip.pasted).sum()


def test_nothing_comes_back_as_nothing():
    trip = round_trip(np.zeros((9, 9), bool), (2, 2, 7, 7))
    assert trip.iou == 1 and not trip.pasted.any() and not trip.grid.any()
    assert round_trip(np.eye(9) > 0, (20, 20, 30, 30)).iou == 0  # a box beyond the image
