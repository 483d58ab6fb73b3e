"""The rule for the five looks, its parts in closed form, and its counts on the real images."""

from collections import Counter

import numpy as np
import pytest

from nucleus_course.data.image_types import (
    IMAGE_TYPES,
    image_type,
    nucleus_diameter,
    run_lengths,
    stain_blue_to_red,
)


def discs(diameter, background, nucleus, shape=(256, 256), pitch=None):
    """An image (H, W, 3) with a grid of discs."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    pitch = pitch or 2 * diameter
    inside = ((rows % pitch - pitch / 2) ** 2 + (cols % pitch - pitch / 2) ** 2) <= diameter**2 / 4
    return np.where(inside[..., None], np.array(nucleus), np.array(background)).astype(np.uint8)


@pytest.mark.parametrize(
    "expected, image",
    [
        ("small fluorescent", discs(14, (10, 10, 10), (90, 90, 90))),
        ("large fluorescent", discs(45, (10, 10, 10), (60, 60, 60))),
        ("small fluorescent", discs(14, (0, 0, 8), (0, 20, 140))),
        ("purple stain", discs(16, (178, 158, 205), (95, 40, 188))),
        ("pink-and-purple stain", discs(16, (205, 203, 208), (115, 55, 153))),
        ("pink-and-purple stain", discs(16, (230, 180, 210), (120, 50, 130))),
        ("grey tissue", discs(14, (215, 215, 215), (90, 90, 90))),
    ],
)
def test_looks(expected, image):
    assert image_type(image) == expected and expected in IMAGE_TYPES


@pytest.mark.parametrize("diameter", [8, 14, 24, 36, 50])
def test_diameter_of_discs(diameter):
    assert nucleus_diameter(discs(diameter, (10,) * 3, (100,) * 3)[..., 0]) == pytest.approx(
        diameter, rel=0.2, abs=2
    )


def test_stain_ratio_in_closed_form():
    image = discs(20, (200, 200, 200), (100, 60, 150), pitch=40)
    assert stain_blue_to_red(image) == pytest.approx(
        np.log(201 / 151) / np.log(201 / 101), rel=0.01
    )


def test_run_lengths():
    assert run_lengths(
        np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    ).tolist() == [2, 1, 5]


@pytest.mark.parametrize("value", [0, 40, 255])
def test_blank_images_have_a_type(value):
    assert image_type(np.full((30, 30, 3), value, np.uint8)) in IMAGE_TYPES


def test_what_is_no_rgb8_image():
    with pytest.raises(ValueError, match="uint8"):
        image_type(np.zeros((4, 4, 3), np.float32))


def test_real_counts(stage1):
    assert Counter(stage1.types.values()) == {
        "small fluorescent": 410,
        "large fluorescent": 131,
        "purple stain": 62,
        "pink-and-purple stain": 45,
        "grey tissue": 16,
    }
    assert {stage1.sizes[i] for i, kind in stage1.types.items() if kind == "grey tissue"} == {
        (1024, 1024)
    }
