"""Training batches: their content and order, independent of the threads."""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny import FakeDataset, disc_dataset, tiny_config, tiny_preset

from nucleus_course._util.errors import UserError
from nucleus_course.config import AugmentConfig
from nucleus_course.data.batches import TrainingBatches, _weights
from nucleus_course.data.dataset import Record
from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.data.preprocess import to_network
from nucleus_course.data.sources import read_sources, source_groups
from nucleus_course.presets import get_preset

TYPES = ("small fluorescent", "small fluorescent", "small fluorescent", "purple stain")


def batches(dataset=None, augment=None, model=None, seed=None, **training):
    return TrainingBatches(
        dataset or disc_dataset(7), tiny_preset(model, augment, **training), seed=seed
    )


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a)


def test_an_item():
    (batch,) = batches()[0]
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert shapes == {
        "image": ((2, 64, 64, 3), "float32"),
        "labels": ((2, 64, 64), "int32"),
        "boxes": ((2, 16, 4), "float32"),
        "ids": ((2, 16), "int32"),
    }
    for labels, boxes, ids in zip(batch["labels"], batch["boxes"], batch["ids"]):
        found, expected = boxes_from_labels(np.maximum(labels, 0))
        np.testing.assert_array_equal(ids[ids > 0], found)
        np.testing.assert_array_equal(boxes[ids > 0], expected)
        assert not boxes[ids == 0].any()


def test_truth_lies_on_the_picture_through_crop_rotation_and_doubling():
    """As in the paper preset: the bright pixels of the input agree with the label map and the boxes."""
    rectangle = np.zeros((80, 90), "int32")
    rectangle[20:60, 30:70] = 7
    image = np.repeat((rectangle[..., None] > 0) * np.uint8(255), 3, axis=2)
    data = FakeDataset([Record("a", image, rectangle, "small fluorescent")])
    model = dataclasses.replace(get_preset("paper-resnet50").model, max_nuclei=4)
    crops = batches(data, AugmentConfig(blur_probability=0.0), model, crop=128, batch_size=12)
    for image, labels, boxes, ids in zip(*crops[0][0].values()):
        bright = image[..., 0] + 43.53 > 127.5
        assert ((labels > 0) ^ bright).mean() < 0.01
        assert set(np.unique(labels)) <= {0, 7} and set(ids) <= {0, 7}
        if (labels > 0).any():
            rows, columns = np.nonzero(labels)
            np.testing.assert_array_equal(
                boxes[0], [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            )
            assert (boxes[0] % 2 == 0).all(), "doubled pixels"


def test_without_augmentation_a_crop_is_the_images_centre():
    data = disc_dataset(1, side=64)
    record = data[0]
    crops = batches(data, AugmentConfig.none(), tiny_config(normalization="mean"), batch_size=1)
    (batch,) = crops[0]
    left = (record.width - 64) // 2
    np.testing.assert_array_equal(batch["labels"][0], record.labels[:, left : left + 64])
    np.testing.assert_allclose(
        batch["image"][0], to_network(record.image[:, left : left + 64], crops.config), atol=1.01
    )


def test_an_epoch_shows_every_image_once():
    crops = batches(disc_dataset(8))
    for epoch in range(3):
        assert sorted(crops.order(epoch)) == list(range(8))
    assert len({tuple(crops.order(epoch)) for epoch in range(4)}) == 4, "in a new order each time"


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(597, 6, 100), (7, 2, 4), (5, 5, 1), (3, 4, 1)]
)
def test_steps_an_epoch(images, batch, steps):
    data = disc_dataset(1)
    data.ids, data.types = (
        tuple(map(str, range(images))),
        {str(i): "small fluorescent" for i in range(images)},
    )
    crops = batches(data, batch_size=batch)
    assert len(crops) == steps
    order = crops.order(0)
    assert len(order) == steps * batch and set(order) == set(range(images)), (
        "every image, and a few again to fill the last batch"
    )
    assert max(Counter(order.tolist()).values()) <= -(-steps * batch // images)
    assert len(batches(data, batch_size=batch, steps_per_epoch=10)) == 10


def test_the_same_for_seed_epoch_and_index_whatever_the_threads():
    one = batches(workers=1)
    expected = [one[i][0] for i in range(len(one))]
    other = batches(workers=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: other[i][0], list(reversed(range(len(other))))))
    assert all(same(a, b) for a, b in zip(expected, reversed(found)))
    assert not same(expected[0], expected[1])
    assert not same(batches(seed=1)[0][0], expected[0])
    other.epoch = 1
    assert not same(other[0][0], expected[0])
    other.epoch = 0
    assert same(other[0][0], expected[0])


def test_keras_does_not_move_the_epoch():
    """fit calls on_epoch_end before the first batch, too."""
    crops = batches()
    crops.on_epoch_end()
    assert crops.epoch == 0


def test_balance_by_type():
    """Six images of one type, two of the other: shares 3 to 1, sqrt(3) to 1, 1 to 1."""
    data = disc_dataset(8, types=TYPES)
    rare = {i for i, name in enumerate(data.ids) if data.types[name] == "purple stain"}
    assert len(rare) == 2
    for balance, share in ((0.5, 1 / (1 + 3**0.5)), (1.0, 0.5)):
        crops = batches(data, balance_types=balance, steps_per_epoch=100)
        order = crops.order(0)
        assert np.isin(order, list(rare)).mean() == pytest.approx(share, abs=0.01)
        counts = np.bincount(order, minlength=8)
        expected = 200 * np.where(np.isin(np.arange(8), list(rare)), share / 2, (1 - share) / 6)
        assert (np.abs(counts - expected) <= 1).all(), "systematic: give or take one"
        assert not np.array_equal(order, crops.order(1))


def test_type_factors_multiply_shares():
    """Six images of one type, two of the other: twice the rare type's share is 2 in 5 (6 to 4) and 2 in 3 (1 to 2)."""
    data = disc_dataset(8, types=TYPES)
    rare = {i for i, name in enumerate(data.ids) if data.types[name] == "purple stain"}
    factors = {"purple stain": 2.0, "grey tissue": 9.0}  # no grey tissue here
    for balance, share in ((0.0, 2 / 5), (1.0, 2 / 3)):
        order = batches(
            data, balance_types=balance, type_factors=factors, steps_per_epoch=100
        ).order(0)
        assert np.isin(order, list(rare)).mean() == pytest.approx(share, abs=0.01)
    assert batches(data, type_factors={"grey tissue": 9.0}).weights is None


def test_balance_by_source():
    """Two experiments of one type, six images to two, share crops 1 to 1; images of no known one count by type."""
    known = {}
    for image_id, source in read_sources().items():
        known.setdefault(source, []).append(image_id)
    ids = known["clumps-256"][:6] + known["spindles-256"][:2]
    data = disc_dataset(8, types=["small fluorescent"])
    named = dict(zip(data.ids, ids))
    groups = source_groups(
        {named[i]: kind for i, kind in data.types.items()} | {"mine": "grey tissue"}
    )
    assert [groups[i] for i in ids] == ["clumps-256"] * 6 + ["spindles-256"] * 2
    assert groups["mine"] == "grey tissue"
    weights = _weights([groups[i] for i in ids], 1.0, [1.0] * 8)
    np.testing.assert_allclose(weights, [1 / 12] * 6 + [1 / 4] * 2)
    here = batches(disc_dataset(8, types=TYPES), balance_types=1.0, balance_by="sources")
    there = batches(disc_dataset(8, types=TYPES), balance_types=1.0)
    np.testing.assert_array_equal(here.weights, there.weights)
    with pytest.raises(UserError, match="balance_by is 'labs': choose types or sources"):
        dataclasses.replace(get_preset("compact").training, balance_by="labs")


def test_more_nuclei_than_slots():
    """Excluded nuclei are -1 in the label map: neither objects nor background."""
    crops = batches(
        disc_dataset(2, count=12), model=tiny_config(max_nuclei=3), augment=AugmentConfig.none()
    )
    (batch,) = crops[0]
    whole = batches(disc_dataset(2, count=12), augment=AugmentConfig.none())[0][0]
    for cut, ids, labels in zip(batch["labels"], batch["ids"], whole["labels"]):
        assert (ids > 0).all() and len(ids) == 3
        np.testing.assert_array_equal(
            cut, np.where((labels == 0) | np.isin(labels, ids), labels, -1)
        )


def test_a_crop_that_does_not_fit_the_upsampling():
    with pytest.raises(ValueError, match="crop 63 is not a multiple of upsample 2"):
        batches(model=tiny_config(upsample=2.0), crop=63)


def test_when_batches_were_ready_is_noted():
    crops = batches()
    crops[1]
    assert set(crops.finished) == {1}
