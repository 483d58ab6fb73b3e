"""Measurements of nuclei: shapes whose numbers are known."""

import csv
import io

import numpy as np
import pytest

from nucleus_course.prediction.measurements import PROPERTIES, count_image, measure_nuclei, to_csv


def test_a_rectangle_and_a_disc():
    labels = np.zeros((60, 80), "int32")
    labels[10:14, 20:30] = 1
    row, column = np.mgrid[:60, :80]
    labels[(row - 40) ** 2 + (column - 50) ** 2 <= 12**2] = 2
    image = np.where(labels == 1, 3000, 1000).astype("uint16")
    box, disc = measure_nuclei(labels, image)
    assert list(box) == list(PROPERTIES) and (box["label"], disc["label"]) == (1, 2)
    assert box["area_px"] == 40 and box["solidity"] == 1 and box["mean_brightness"] == 3000
    assert (box["centroid_row"], box["centroid_column"]) == (11.5, 24.5)
    assert box["diameter_px"] == pytest.approx(np.sqrt(4 * 40 / np.pi))
    # n points in a row have a variance of (n^2 - 1) / 12.
    assert box["eccentricity"] == pytest.approx(np.sqrt(1 - (4**2 - 1) / (10**2 - 1)))
    assert disc["eccentricity"] < 0.1 and disc["mean_brightness"] == 1000
    assert count_image("a.tif", labels.shape, [box, disc]) == {
        "image": "a.tif", "height": 60, "width": 80, "nuclei": 2, "median_area_px": (40 + disc["area_px"]) / 2,
    }  # fmt: skip


def test_channels_are_averaged_and_alpha_is_not_one():
    labels = np.ones((4, 5), "int32")
    image = np.zeros((4, 5, 4), "uint8") + np.array([30, 60, 90, 255], "uint8")
    assert measure_nuclei(labels, image)[0]["mean_brightness"] == 60
    assert measure_nuclei(labels, np.full((4, 5), 0.25))[0]["mean_brightness"] == 0.25


def test_no_nuclei_are_no_rows():
    labels = np.zeros((4, 5), "int32")
    assert measure_nuclei(labels, labels) == []
    assert count_image("b.png", (4, 5), [])["median_area_px"] == ""
    assert to_csv([], ["image", "label"]) == "image,label\n"


def test_the_csv_reads_back():
    rows = [
        {"image": 'odd, "name".png', "area_px": 12.0, "solidity": 1 / 3},
        {"image": "b", "area_px": 3.0, "solidity": 1.0},
    ]
    back = list(csv.DictReader(io.StringIO(to_csv(rows, list(rows[0])))))
    assert [r["image"] for r in back] == ['odd, "name".png', "b"]
    assert [float(r["solidity"]) for r in back] == [0.3333, 1.0] and back[0]["area_px"] == "12.0"
