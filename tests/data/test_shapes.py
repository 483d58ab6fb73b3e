"""Outlines as pixels: polygons and ellipses."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon as draw_polygon

from nucleus_course.data.annotations.shapes import ellipse, fill

SHAPE = (48, 60)  # height, width
TRIANGLE = [(3.3, 2.2), (17.9, 4.6), (8.4, 15.7)]
HEXAGON = [(30.2, 20.1), (41.3, 22.4), (44.8, 30.6), (38.7, 38.9), (29.4, 36.2), (26.2, 28.3)]
FLAT = [np.ravel(ring).tolist() for ring in (TRIANGLE, HEXAGON)]


COORDINATE = st.floats(-10, 50, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=9))
def test_filling_is_as_scikit_image_does_it(points):
    ring = np.array(points) + [np.pi / 1e4, np.e / 1e4]  # no pixel's centre on an edge
    wanted = np.zeros((30, 40), bool)
    wanted[draw_polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, wanted.shape)] = True
    top, left, piece = fill([ring], wanted.shape)
    found = np.zeros_like(wanted)
    if piece is not None:
        found[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    assert (found != wanted).sum() <= 1


def test_neighbours_share_no_pixel_and_leave_none():
    corners = [(2, 2), (20, 2), (20, 20), (2, 20)]
    total = np.zeros((24, 24), int)
    for one, other in zip(corners, corners[1:] + corners[:1]):  # four triangles around the centre
        top, left, piece = fill([np.float64([one, other, (11, 11)])], total.shape)
        total[top : top + piece.shape[0], left : left + piece.shape[1]] += piece
    assert (total[2:20, 2:20] == 1).all() and total.sum() == 18 * 18


def test_an_ellipse_has_its_area():
    _, _, piece = ellipse("e", (50, 50), (40, 25), 0.6).draw((100, 100))
    assert abs(piece.sum() - np.pi * 40 * 25) < 8
