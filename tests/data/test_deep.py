"""Images of more than 8 bits reach the network as the file stores them, through the cache as without it."""

import numpy as np
import pytest
import tifffile
from tiny import lively_model

from nucleus_course import load_dataset
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.data.canonical import canonical
from nucleus_course.data.preprocess import see
from nucleus_course.data.read import to_rgb8, to_uint16
from nucleus_course.data.rescaled import Rescaled
from nucleus_course.prediction.datasets import predict_dataset

SIDE = 96


def nuclei(dtype="uint16", seed=0, scale=1.0, offset=0.0):
    """Dim discs on a dark ground, 40 counts apart of 65,535, and one saturated pixel: (image, labels)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, (y, x) in enumerate([(20, 24), (24, 70), (66, 30), (70, 72)], 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 < 9**2] = number
    image = rng.normal(200, 4, labels.shape).round() + 40.0 * (labels > 0)
    image[50, 50] = 65535
    return (image * scale + offset).astype(dtype), labels


@pytest.fixture
def folder(tmp_path):
    for name, options in {"a": {}, "b": {"dtype": "float32", "scale": 1e-4, "seed": 1}}.items():
        image, labels = nuclei(**options)
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", labels)
    return tmp_path


def test_records_hold_what_the_file_holds(folder, tmp_path):
    for _ in range(2):  # decoded, then from the cache
        data = load_dataset(folder, cache_dir=tmp_path / "cache", progress=False)
        assert data["a"].raw.dtype == np.uint16 and data["a"].image.dtype == np.uint8
        np.testing.assert_array_equal(data["a"].raw, nuclei()[0])
        assert data["a"].labels.max() == 4


def test_floats_keep_order_and_spacing(folder, tmp_path):
    stored = load_dataset(folder, cache_dir=tmp_path / "cache", progress=False)["b"].raw
    values = nuclei("float32", scale=1e-4, seed=1)[0]
    sound = values < 1.0  # the saturated pixel is cut off
    slope, offset = np.polyfit(values[sound], stored[sound], 1)
    assert slope > 0
    np.testing.assert_allclose(stored[sound], slope * values[sound] + offset, atol=1.0)
    assert stored[~sound] == 65535
    difference = np.abs(canonical(stored).image.astype(int) - canonical(values).image)
    assert difference.max() <= 1 and canonical(stored).polarity == canonical(values).polarity


def test_what_8_bits_hold_is_stored_once():
    levels = np.arange(256, dtype="uint8").reshape(16, 16)
    for array in (levels, np.eye(8, dtype=bool), 257 * levels.astype("uint16")):
        assert to_uint16(array) is None
    np.testing.assert_array_equal(to_rgb8(257 * levels.astype("uint16"))[..., 0], levels)


def test_prediction_training_and_rescaling_see_the_raw_values(folder, tmp_path):
    data = load_dataset(folder, cache_dir=tmp_path / "cache", progress=False)
    model = lively_model()
    found = predict_dataset(model, data, progress=False)
    alone = model.predict(tifffile.imread(folder / "a.tif"))
    np.testing.assert_array_equal(found.images["a"].scores, alone.scores)

    record = data["a"]
    batches = TrainingBatches.__new__(TrainingBatches)
    batches.records, batches.images, batches.config = [record], {}, model.config
    pixels = batches._views(0)[0][0]
    np.testing.assert_array_equal(pixels, see(nuclei()[0], model.config).pixels)
    twice = Rescaled(data, 2.0)["a"]
    assert twice.raw.shape == (2 * SIDE, 2 * SIDE) and twice.raw.dtype == np.uint16
    assert twice.raw[41, 49] == pytest.approx(record.raw[20, 24], abs=16)
