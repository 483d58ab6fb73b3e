"""Label maps: boxes, areas, numbering, each against a loop."""

import numpy as np
import pytest

from nucleus_course.data.labels import areas_from_labels, boxes_from_labels, renumber


def random_labels(seed, shape=(23, 31), ids=9):
    rng = np.random.default_rng(seed)
    return rng.integers(0, ids + 1, shape).astype(np.int32) * (rng.random(shape) < 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_and_areas_against_a_loop(seed):
    labels = random_labels(seed)
    ids, boxes = boxes_from_labels(labels)
    area_ids, areas = areas_from_labels(labels)
    assert ids.dtype == np.int32 and boxes.dtype == np.float32
    assert ids.tolist() == area_ids.tolist() == sorted(set(labels[labels > 0].tolist()))
    for label, box, area in zip(ids, boxes, areas):
        rows, cols = np.where(labels == label)
        assert box.tolist() == [rows.min(), cols.min(), rows.max() + 1, cols.max() + 1]
        assert area == rows.size


def test_one_pixel_in_the_corner():
    labels = np.zeros((4, 6), np.int32)
    labels[3, 5] = 7
    ids, boxes = boxes_from_labels(labels)
    assert ids.tolist() == [7] and boxes.tolist() == [[3, 5, 4, 6]]


def test_no_nuclei():
    ids, boxes = boxes_from_labels(np.zeros((4, 6), np.uint16))
    assert ids.shape == (0,) and boxes.shape == (0, 4) and boxes.dtype == np.float32
    assert areas_from_labels(np.zeros((4, 6), np.int32))[1].size == 0


def test_renumber_closes_gaps_in_order():
    labels = np.array([[0, 5, 5], [9, 0, 2]], np.int32)
    assert renumber(labels).tolist() == [[0, 2, 2], [3, 0, 1]]
    assert renumber(labels).dtype == np.int32


@pytest.mark.parametrize("bad", [np.zeros((3, 3, 1), int), np.zeros((3, 3), float)])
def test_what_is_no_label_map(bad):
    with pytest.raises(ValueError, match="label map"):
        boxes_from_labels(bad)
