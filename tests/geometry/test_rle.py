"""RLE of many masks at once against pycocotools, one mask at a time."""

import numpy as np
import pytest
from fakes import ellipses, noisy_detections, rle_from_mask
from pycocotools import mask as coco_mask

from nucleus_course.geometry.rle import (
    boxes_from_rles,
    resolve_overlaps,
    rle_from_labels,
    rles_from_runs,
    runs_from_pixels,
    runs_from_rles,
)

RNG = np.random.default_rng(1)
LABELS = {
    "ellipses": ellipses(RNG, 90, 70, 40),
    "noise": RNG.integers(0, 400, (37, 53)).astype(np.uint16),
    "one pixel": np.eye(1, dtype=np.uint8),
    "full": np.full((6, 4), 3),
    "one row": np.array([[1, 1, 0, 2, 0, 2]]),
    "one column": np.array([[0], [7], [7]]),
    "empty": np.zeros((5, 8), np.int32),
    "large labels": np.array([[0, 2**31 - 1], [70000, 0]], np.uint32),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_images_encode_as_pycocotools_does(name):
    labels = LABELS[name]
    ids, rles = rle_from_labels(labels)
    assert ids.tolist() == sorted(set(labels.ravel().tolist()) - {0})
    for label, rle in zip(ids, rles):
        expected = coco_mask.encode(np.asfortranarray((labels == label).astype(np.uint8)))
        assert rle == {"size": list(labels.shape), "counts": expected["counts"].decode()}


@pytest.mark.parametrize("name", LABELS)
def test_runs_are_the_pixels_of_the_masks(name):
    labels = LABELS[name]
    ids, rles = rle_from_labels(labels)
    runs = runs_from_rles(rles, *labels.shape)
    assert runs.areas.tolist() == [int((labels == i).sum()) for i in ids]
    mask, position = runs.pixels()
    again = np.zeros(labels.size, np.int64)
    again[position] = ids[mask] if len(ids) else 0
    assert (again.reshape(labels.shape[::-1]).T == labels).all()


def test_masks_that_overlap_are_empty_or_full_decode_as_pycocotools_decodes():
    masks, _ = noisy_detections(np.random.default_rng(2), LABELS["ellipses"], extra=30)
    masks += [
        np.zeros((90, 70), bool),
        np.ones((90, 70), bool),
        np.indices((90, 70)).sum(0) % 2 > 0,
    ]
    rles = [rle_from_mask(m) for m in masks]
    mask, position = runs_from_rles(rles, 90, 70).pixels()
    again = np.zeros((len(masks), 90 * 70), bool)
    again[mask, position] = True
    assert (again.reshape(-1, 70, 90).transpose(0, 2, 1) == np.stack(masks)).all()


def test_runs_from_pixels_and_back():
    masks, _ = noisy_detections(np.random.default_rng(5), LABELS["ellipses"], extra=10)
    masks += [np.zeros((90, 70), bool), np.ones((90, 70), bool)]
    mask, column, row = np.nonzero(np.stack(masks).transpose(0, 2, 1))
    runs = runs_from_pixels(mask, column * 90 + row, len(masks))
    assert rles_from_runs(runs, 90, 70) == [rle_from_mask(m) for m in masks]
    assert all(np.array_equal(a, b) for a, b in zip(runs.pixels(), (mask, column * 90 + row)))


def test_no_masks():
    runs = runs_from_rles([], 4, 5)
    assert runs.areas.shape == (0,) and runs.pixels()[0].shape == (0,)
    assert (resolve_overlaps(runs, [], 4, 5) == np.zeros((4, 5))).all()
    assert boxes_from_rles([]).shape == (0, 4)


@pytest.mark.parametrize(
    "rle, message",
    [
        ({"size": [5, 4], "counts": "d0"}, "size"),
        ({"size": [4, 5], "counts": ""}, "empty counts"),
        ({"size": [4, 5], "counts": "\x10"}, "not compressed RLE"),
        ({"size": [4, 5], "counts": "é"}, "not compressed RLE"),
        ({"size": [4, 5], "counts": "P"}, "not compressed RLE"),  # ends inside a number
        # a number of 80 bits
        ({"size": [4, 5], "counts": "PPPPPPPPPPPPPPPP0"}, "not compressed RLE"),
        ({"size": [4, 5], "counts": "3"}, "covers 3 pixels, its image has 20"),
        ({"size": [4, 5], "counts": "5O4"}, "negative length"),
    ],
)
def test_broken_rle_is_refused_by_its_number(rle, message):
    good = rle_from_mask(np.eye(4, 5))
    with pytest.raises(ValueError, match=message) as caught:
        runs_from_rles([good, rle], 4, 5)
    assert "mask 1" in str(caught.value)


def test_label_images_must_be_flat_and_whole():
    for bad in (np.zeros((2, 2)), np.zeros((2, 2, 2), int), np.array([[-1]])):
        with pytest.raises(ValueError):
            rle_from_labels(bad)


def test_overlaps_go_to_the_higher_score_and_ties_to_the_earlier():
    a, b, c = (np.zeros((1, 6), bool) for _ in range(3))
    a[0, 0:4], b[0, 2:6], c[0, 3:5] = True, True, True
    rles = [rle_from_mask(m) for m in (a, b, c)]
    runs = runs_from_rles(rles, 1, 6)
    assert resolve_overlaps(runs, [0.5, 0.9, 0.7], 1, 6).tolist() == [[1, 1, 2, 2, 2, 2]]
    assert resolve_overlaps(runs, [0.9, 0.5, 0.7], 1, 6).tolist() == [[1, 1, 1, 1, 3, 2]]
    assert resolve_overlaps(runs, [0.5, 0.5, 0.5], 1, 6).tolist() == [[1, 1, 1, 1, 2, 2]]


def test_boxes_are_tight_and_half_open():
    mask = np.zeros((20, 30), bool)
    mask[3:7, 11:25] = True
    assert boxes_from_rles([rle_from_mask(mask)]).tolist() == [[3, 11, 7, 25]]
