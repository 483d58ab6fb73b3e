"""Training sees what prediction computes; stained images in several greys."""

import dataclasses

import numpy as np
import pytest
from test_canonical import field, stained, tissue
from tiny import FakeDataset, tiny_config, tiny_preset

from nucleus_course.config import AugmentConfig
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.data.canonical import TRAINING_STAINS, canonical
from nucleus_course.data.dataset import Record
from nucleus_course.prediction.pipeline import prepare

CONFIG = dataclasses.replace(tiny_config(), input="canonical")


def batches(image, **training):
    labels = np.zeros(image.shape[:2], "int32")
    labels[20:40, 20:40] = 1
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    data = FakeDataset([Record("a", image, labels, "small fluorescent")])
    return TrainingBatches(data, tiny_preset(CONFIG, AugmentConfig.none(), **training)), image


@pytest.mark.parametrize("invert", [False, True])
def test_a_crop_is_what_prediction_sees(invert):
    grey = np.rint(255 * field(64, 6)[0]).astype("uint8")
    crops, image = batches(255 - grey if invert else grey, batch_size=1)
    ((batch,),) = [crops[0]]
    np.testing.assert_array_equal(batch["image"], prepare(image, CONFIG).input)
    assert np.corrcoef(batch["image"][0, ..., 0].ravel(), grey.ravel())[0, 1] > 0.9


def test_stained_images_come_in_all_their_greys_and_the_same_again():
    crops, image = batches(stained(tissue(64, 0.5)), batch_size=8, steps_per_epoch=4)
    expected = [canonical(image).image] + [
        canonical(image, stain_weights=w).image for w in TRAINING_STAINS
    ]
    seen = [
        np.rint((row[..., 0] + 1) * 127.5).astype("uint8")
        for index in range(4)
        for row in crops[index][0]["image"]
    ]
    found = [
        next(k for k, other in enumerate(expected) if np.array_equal(view, other)) for view in seen
    ]
    assert set(found) == set(range(4))
    np.testing.assert_array_equal(crops[1][0]["image"], crops[1][0]["image"])
    crops.epoch = 1
    assert not np.array_equal(
        crops[1][0]["image"], batches(image, batch_size=8, steps_per_epoch=4)[0][1][0]["image"]
    )
