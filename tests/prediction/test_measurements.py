"""Measurements of nuclei whose values are known."""

import csv
import io

import numpy as np
import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.prediction.measurements import (
    PROPERTIES,
    check_properties,
    columns_of,
    count_image,
    measurement_table,
    to_csv,
    to_rows,
)


def measure_nuclei(*arguments):
    return to_rows(measurement_table(*arguments))


def test_a_rectangle_and_a_disc():
    labels = np.zeros((60, 80), "int32")
    labels[10:14, 20:30] = 1
    row, column = np.mgrid[:60, :80]
    labels[(row - 40) ** 2 + (column - 50) ** 2 <= 12**2] = 2
    image = np.where(labels == 1, 3000, 1000).astype("uint16")
    box, disc = measure_nuclei(labels, image)
    assert list(box) == [*PROPERTIES, "touches_edge"] and (box["label"], disc["label"]) == (1, 2)
    assert box["area_px"] == 40 and box["solidity"] == 1 and box["mean_brightness"] == 3000
    assert (box["centroid_row"], box["centroid_column"]) == (11.5, 24.5)
    assert box["diameter_px"] == pytest.approx(np.sqrt(4 * 40 / np.pi))
    # n points in a row have a variance of (n^2 - 1) / 12.
    assert box["eccentricity"] == pytest.approx(np.sqrt(1 - (4**2 - 1) / (10**2 - 1)))
    assert disc["eccentricity"] < 0.1 and disc["mean_brightness"] == 1000
    assert count_image("a.tif", labels.shape, [box, disc]) == {
        "image": "a.tif", "height": 60, "width": 80, "nuclei": 2, "median_area_px": (40 + disc["area_px"]) / 2,
        "polarity": "", "stain": "", "low": "", "high": "", "novelty": "", "scale": "", "warnings": "",
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


def test_numbers_below_one_keep_four_digits():
    (row,) = csv.DictReader(
        io.StringIO(to_csv([{"a": 1.23456e-7, "b": 1234.56789, "c": 0.98765}], "abc"))
    )
    assert row == {"a": "1.235e-07", "b": "1234.5679", "c": "0.9877"}


def test_rows_with_other_columns_share_a_table():
    rows = [{"label": 1, "mean": 2}, {"label": 2, "score": 1}]
    assert to_csv(rows, columns_of(rows, ["image"])) == "image,label,mean,score\n,1,2,\n,2,,1\n"
    assert to_csv(rows, ["label"]) == "label\n1\n2\n"


def test_micrometres_scores_channels_and_the_edge():
    labels = np.zeros((40, 60), "int32")
    labels[10:14, 20:30] = 3
    labels[36:40, 0:5] = 8
    labels[20:30, 20:30], labels[24, 24] = 9, 0
    image = np.random.default_rng(0).integers(0, 65535, (40, 60, 3)).astype("uint16")
    found = measure_nuclei(labels, image, [0.9, 0.8, 0.7], 0.5)
    assert [n["touches_edge"] for n in found] == [False, True, False]
    assert [n["score"] for n in found] == [0.9, 0.8, 0.7]
    for label, row in zip((3, 8, 9), found):
        mask = labels == label
        assert row["area_um2"] == mask.sum() * 0.25
        assert row["diameter_um"] == pytest.approx(np.sqrt(4 * mask.sum() * 0.25 / np.pi))
        for channel in range(3):
            mean = image[mask][:, channel].mean()
            assert row[f"mean_channel_{channel + 1}"] == pytest.approx(mean)
        assert row["mean_brightness"] == pytest.approx(image[mask].mean())
    more = measurement_table(labels, scores=[0.9, 0.8, 0.7], quality=[0.6, 0.5, 1], novelty=1.5)
    assert more["quality"] == [0.6, 0.5, 1] and more["novelty"] == [1.5] * 3
    assert not {"quality", "novelty"} & set(found[0])
    # Columns 20 to 29 reach from 10 to 15 micrometres, rows 10 to 13 from 5 to 7.
    assert (found[0]["centroid_x_um"], found[0]["centroid_y_um"]) == (12.5, 6.0)


def test_properties_by_name():
    labels = np.zeros((40, 60), "int32")
    labels[10:14, 20:30] = 3
    table = measurement_table(labels, properties=["bbox", "euler_number", "eccentricity", "label"])
    assert [table[f"bbox-{i}"] for i in range(4)] == [[10], [20], [14], [30]]
    assert table["euler_number"] == [1] and table["label"] == [3]
    assert list(table).count("eccentricity") == 1
    assert "mean_brightness" not in table


def test_no_nuclei_still_have_columns():
    table = measurement_table(np.zeros((4, 5), int), np.zeros((4, 5, 3)), [], 0.5, ["bbox"])
    assert {"area_um2", "score", "mean_channel_3", "bbox-0"} <= set(table)
    assert not any(table.values())


@pytest.mark.parametrize(
    "name, words",
    [
        ("eccentricty", "no property 'eccentricty'; did you mean eccentricity"),
        ("coords", "'coords' is not a number"),
        ("image", "'image' is not a number"),
        ("__class__", "no property '__class__'"),
    ],
)
def test_a_property_that_is_none_is_named(name, words):
    with pytest.raises(UserError, match=words):
        check_properties(["solidity", name])


def test_every_other_property_is_measured_on_a_single_pixel():
    from skimage.measure import regionprops

    labels = np.zeros((9, 9), int)
    labels[4, 4] = 1
    numbers = []
    for name in set(regionprops(labels, intensity_image=labels)[0]):
        try:
            numbers += check_properties([name])
        except UserError as error:
            assert "is not a number" in str(error)
    table = measurement_table(labels, labels, properties=numbers)
    assert len(numbers) > 20 and all(len(values) == 1 for values in table.values())


def test_an_image_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"\(4, 6\).*\(4, 5\)"):
        measure_nuclei(np.ones((4, 5), int), np.ones((4, 6)))
