"""Outlines along the edges of pixels, against shapely: valid, exact, with holes and pieces."""

import numpy as np
import pytest
import shapely

from nucleus_course.geometry.polygons import polygons_from_labels


def shape_of(pieces):
    return shapely.MultiPolygon([shapely.Polygon(p[0], p[1:]) for p in pieces])


def inside(shape, height, width):
    """The pixels whose centres lie in a shape, (H, W) bool."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return shapely.contains_xy(shape, columns, rows)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_noise_comes_back_pixel_by_pixel(dtype):
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 12, 2)
        labels = rng.integers(0, rng.integers(2, 5), (height, width)).astype(dtype)
        found = polygons_from_labels(labels)
        assert list(found) == [i for i in np.unique(labels) if i]
        for label, pieces in found.items():
            shape = shape_of(pieces)
            assert shape.is_valid, shapely.is_valid_reason(shape)
            assert shape.area == (labels == label).sum()
            assert (inside(shape, height, width) == (labels == label)).all()


def test_corners_only_and_which_way_round():
    labels = np.zeros((9, 9), int)
    labels[1:8, 1:8] = 3
    labels[3, 3] = labels[4, 4] = labels[6, 2:5] = 0
    ((outer, *holes),) = polygons_from_labels(labels)[3]
    assert outer.tolist() == [[1, 1], [8, 1], [8, 8], [1, 8]]
    assert sorted(map(len, holes)) == [4, 4, 4], "holes that touch at a corner are two"
    assert shapely.LinearRing(outer).is_ccw  # clockwise where y points down
    assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)


def test_pixels_that_touch_at_a_corner_are_two_pieces():
    assert [len(p) for p in polygons_from_labels(np.eye(2, dtype=int)).values()] == [2]


def test_a_ring_closed_over_a_corner_has_a_hole():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    ((outer, *holes),) = polygons_from_labels(labels)[1]
    shape = shape_of([[outer, *holes]])
    assert len(holes) == 1 and shape.is_valid and shape.area == 7


def test_no_nuclei_no_polygons():
    assert polygons_from_labels(np.zeros((3, 4), int)) == {}
    assert polygons_from_labels(np.zeros((0, 4), int)) == {}
