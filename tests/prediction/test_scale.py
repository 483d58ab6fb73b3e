"""The scale of prediction: given, or found by a first pass, and undone in the result."""

import dataclasses

import numpy as np
import pytest
from components import Components, agreement, dots, model_of
from scipy import ndimage
from tiny import disc_dataset, lively_model

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.prediction import scale, tiles
from nucleus_course.prediction.datasets import predict_dataset
from nucleus_course.prediction.detections import Detections

KNOWN = Thresholds(score=0.5, diameters=(10, 20, 40))


class Seen(Components):
    """Components that record the shapes of their inputs."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def candidates(self, prepared):
        self.shapes.append(tuple(int(v) for v in prepared.window))
        return super().candidates(prepared)


def look(radius, thresholds=KNOWN, **options):
    """(detections of 16 discs of a radius, their true label image, shapes of the inputs)"""
    image, _ = dots(4, 4, step=6 * radius, radius=radius)
    model = model_of(Seen(), thresholds)
    found = tiles.predict_image(model, image, thresholds, tile=0, **options)
    return found, ndimage.label(image)[0], model.engine.shapes


@pytest.mark.parametrize("radius", (3, 8, 40))
def test_a_diameter_gives_nuclei_the_best_size_and_labels_their_own(radius):
    found, truth, shapes = look(radius, diameter=2 * radius + 1)
    factor = 20 / (2 * radius + 1)
    assert shapes == [tuple(round(side * factor) for side in truth.shape)]
    assert found.scale == pytest.approx(factor) and found.label_image().shape == truth.shape
    assert agreement(found.label_image(), truth, 0.7) == 1.0
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    np.testing.assert_allclose(sizes, 2 * radius + 1, atol=2 / factor + 0.5)


@pytest.mark.parametrize("radius, looks", ((3, 2), (8, 1), (40, 2)))
def test_a_first_look_decides(radius, looks):
    found, truth, shapes = look(radius, diameter="auto")
    assert len(shapes) == looks and shapes[0] == truth.shape
    assert (found.scale == 1) == (looks == 1)
    assert float(4 * np.log2(found.scale)).is_integer()  # few input sizes, each compiled once
    assert agreement(found.label_image(), truth, 0.7) == 1.0
    seen = scale.median_diameter(found) * found.scale
    assert 10 <= seen <= 40 and (looks == 1 or seen == pytest.approx(20, rel=0.2))
    assert ("times its size" in repr(found)) == (looks == 2)
    assert found.confident().scale == found.scale


class Found:
    """Detections of one diameter and one score each, as a look at a scale gives them."""

    def __init__(self, diameter, scores):
        self.scores, self.scale = np.array(scores), 1.0
        self.areas = np.full(len(scores), np.pi * diameter**2 / 4)

    def confident(self):
        return self


@pytest.mark.parametrize("score, kept", ((0.9, 2.0), (0.7, 1.0), (0.8, 2.0)))
def test_a_second_look_counts_if_the_network_is_not_less_sure(score, kept):
    asked = []

    def at(factor):
        asked.append(factor)
        return Found(10, [0.8, 0.8] if factor == 1 else [score] * 5)

    found = scale.settle(at, dataclasses.replace(KNOWN, diameters=(12, 20, 40)))
    assert found.scale == kept and asked == [1.0, 2.0]


def test_the_first_look_is_the_rule():
    assert look(3)[0].scale == look(3, diameter="auto")[0].scale > 1
    model = lively_model(Thresholds(score=0.1, diameters=(1, 2, 3)))  # all nuclei are larger
    model.rescorer = None
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")
    own, smaller = (model.trace(image, diameter=d) for d in ("none", 4))
    assert (own.scale, smaller.scale) == (1, 0.5) and len(own.detections) > 0
    sure = [scale.mean_score(t.detections) for t in (own, model.trace(image))]
    assert sure[1] >= sure[0]


def test_resized_images_are_counted():
    model = lively_model(Thresholds(score=0.1, diameters=(1, 2, 3)))
    counted = [
        predict_dataset(model, disc_dataset(2), progress=False, diameter=d).info["resized"]
        for d in ("none", 4)
    ]
    assert counted == [0, 2]


def test_weights_that_know_no_sizes_look_at_images_as_they_are():
    unknown = dataclasses.replace(KNOWN, diameters=())
    assert look(3, unknown, diameter="auto")[0].scale == 1
    assert look(3, diameter=None)[0].scale == 1
    with pytest.raises(UserError, match='"diameters"'):
        look(3, unknown, diameter=30)


def test_an_image_without_nuclei_is_looked_at_once():
    model = model_of(Seen(), KNOWN)
    found = tiles.predict_image(model, np.zeros((64, 64), "uint8"), KNOWN, diameter="auto")
    assert len(found) == 0 and len(model.engine.shapes) == 1


@pytest.mark.parametrize("wrong", ("large", 0, -3, float("nan"), "inf", [3]))
def test_a_diameter_that_is_none(wrong):
    with pytest.raises(UserError, match="diameter"):
        scale.check_diameter(wrong)


def test_the_least_area_is_what_the_network_sees():
    thresholds = Thresholds(min_area=20)
    empty = np.zeros((0, 4), "float32")
    found = Detections(empty, np.zeros(0), np.zeros((0, 4, 4)), empty, 80, 40, thresholds)
    assert scale.at_size(found, (20, 10)).thresholds.min_area == 1
    assert scale.at_size(found, (160, 80)).thresholds.min_area == 80
    assert scale.at_size(found, (80, 40)) is found


def test_diameters_are_three_in_order():
    with pytest.raises(UserError, match="diameters"):
        Thresholds(diameters=(20, 10, 40))
    with pytest.raises(UserError, match="diameters"):
        Thresholds(diameters=(None, None, None))
