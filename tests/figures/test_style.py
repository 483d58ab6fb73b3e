"""What all figures share: colours, outlines, boxes."""

import matplotlib
import numpy as np
import pytest

from nucleus_course.figures import style


def test_class_colours_stay_apart_without_colour_vision():
    """Neighbouring classes differ by more than hue: by hatch and letter."""
    looks = (style.CLASS_COLOURS, style.CLASS_HATCHES, style.CLASS_LETTERS)
    for look, number in zip(looks, (8, 8, 7)):
        assert len(set(look.values())) == len(look) == number


@pytest.mark.parametrize("ids", [None, [2], [1, 3]])
def test_outlines_are_the_lines_between_pixels(ids):
    labels = np.array([[1, 1, 2, 0], [1, 3, 2, 0], [0, 3, 3, 3]])
    expected = set()
    for r, c in np.ndindex(labels.shape):
        own = labels[r, c]
        if not own or (ids and own not in ids):
            continue
        for dr, dc in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            r2, c2 = r + dr, c + dc
            inside = 0 <= r2 < labels.shape[0] and 0 <= c2 < labels.shape[1]
            if not inside or labels[r2, c2] != own:
                y, x = r + dr / 2, c + dc / 2
                expected.add(tuple(sorted([(x - abs(dr) / 2, y - abs(dc) / 2), (x + abs(dr) / 2, y + abs(dc) / 2)])))  # fmt: skip
    segments = style.outline_segments(labels, ids)
    assert {tuple(sorted(map(tuple, s))) for s in segments.tolist()} == expected
    assert len(segments) == len(expected)
    dashed = style.outline_segments(np.pad(np.ones((40, 40), int), 5), dashed=True)
    assert 60 <= len(dashed) <= 100  # about half of 160


def test_outlines_show_on_any_ground_and_in_grey():
    """Every outline contrasts with its black rim, and the annotation's is dashed."""

    def luminance(colour):
        parts = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    figure, (axis,) = style.panels(1, 1)
    for colour in (style.TRUTH, style.FOUND, style.GREEN, style.VERMILION):
        style.outline(axis, np.pad(np.ones((30, 30), int), 3), colour)
        rim, line = axis.collections[-2:]
        assert matplotlib.colors.to_hex(rim.get_color()[0]) == "#000000"
        assert rim.get_linewidth()[0] > line.get_linewidth()[0]
        assert (luminance(colour) + 0.05) / 0.05 > 3
        assert (len(line.get_segments()) < 120) == (colour == style.TRUTH)


def test_boxes_lie_on_pixel_edges():
    figure, (axis,) = style.panels(1, 1)
    style.draw_boxes(axis, np.array([[1, 2, 4, 7]]), style.FOUND)
    rim, line = axis.collections
    for lines in (rim, line):
        corners = np.array(lines.get_segments()[0])
        assert corners.min(axis=0).tolist() == [1.5, 0.5]
        assert corners.max(axis=0).tolist() == [6.5, 3.5]
    assert matplotlib.colors.to_hex(rim.get_color()[0]) == "#000000"
    assert rim.get_linewidth()[0] > line.get_linewidth()[0]


@pytest.mark.parametrize("style_name", ["--", ":"])
def test_the_rim_of_a_dashed_box_is_dashed_alike(style_name):
    _, (axis,) = style.panels(1, 1)
    style.draw_boxes(axis, np.array([[1, 2, 4, 7]]), style.FOUND, style=style_name, widths=0.8)
    gaps = [lines.get_linestyle()[0][1] for lines in axis.collections]  # in points
    assert gaps[1] is not None and np.allclose(*gaps)


def test_filled_labels_separate_neighbours():
    out = style.filled(np.array([[1, 1, 2, 2], [0, 0, 0, 0]]))
    assert (out[0, 2] == 255).all() and not (out[0, 0] == 255).all() and (out[1] == 0).all()
