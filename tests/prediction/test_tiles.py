"""Tiles and their merging, with a perfect detector of connected components."""

import numpy as np
import pytest
from components import Components, agreement, dots, model_of
from scipy import ndimage

from nucleus_course._util.errors import UserError
from nucleus_course.prediction import tiles


def predict(model, image, **options):
    return tiles.predict_image(model, image, model.thresholds, progress=False, **options)


@pytest.mark.parametrize("shift", (0, 3, -4))
def test_every_nucleus_is_found_once_wherever_tiles_meet(shift):
    image, count = dots(50, 45, shift=shift)
    labels = predict(model_of(), image).label_image()
    truth, number = ndimage.label(image > 0)
    assert number == count == labels.max() == 2250
    assert agreement(labels, truth, 0.7) == 1.0


def test_tiled_and_untiled_label_images_agree():
    rng = np.random.default_rng(1)
    image = np.zeros((700, 640), "uint8")
    y, x = np.mgrid[:700, :640]
    for _ in range(90):
        r, c, a, b = *rng.uniform(0, (700, 640)), *rng.uniform(4, 22, 2)
        image[((y - r) / a) ** 2 + ((x - c) / b) ** 2 <= 1] = 200
    whole = predict(model_of(), image, tile=0).label_image()
    for tile, overlap in ((320, 128), (400, 96)):
        found = predict(model_of(), image, tile=tile, overlap=overlap).label_image()
        assert agreement(found, whole) >= 0.99


def test_a_small_image_is_looked_at_once_and_a_large_one_in_tiles():
    model = model_of()
    predict(model, np.zeros((300, 768), "uint8"))
    assert model.engine.calls == 1
    predict(model, np.zeros((300, 769), "uint8"))
    assert model.engine.calls == 1 + 2


def test_a_crowded_image_is_looked_at_in_quarters_until_nothing_is_cut_off():
    image, count = dots(40, 40, step=16, radius=5)  # 640 x 640: untiled by its size alone
    model = model_of(Components(most=300))
    assert predict(model, image).label_image().max() == count == 1600
    assert model.engine.calls > 5


def test_where_dividing_ends_one_line_says_so():
    image, count = dots(40, 40, step=8, radius=2)
    with pytest.warns(UserWarning, match="enlarge the image"):
        found = predict(model_of(Components(most=260)), image)
    assert len(found) < count


def test_a_nucleus_wider_than_the_margin_stays_one():
    image = np.zeros((300, 1200), "uint8")
    y, x = np.mgrid[:300, :1200]
    image[((y - 150) / 60) ** 2 + ((x - 600) / 60) ** 2 <= 1] = 200  # across two cores
    labels = predict(model_of(), image).label_image()
    assert labels.max() == 1
    assert agreement(labels, (image > 0).astype(int)) == 1.0


def test_pieces_that_an_edge_cuts_yield_to_the_whole():
    whole, piece = [100, 100, 160, 160], [100, 100, 160, 128]  # the second tile ends at column 128
    boxes = np.array([piece, whole], "float32")
    scores, owners, own = np.array([0.99, 0.5]), np.array([0, 1]), np.array([True, True])
    keep = tiles.merge(boxes, scores, owners, own, cut=np.array([True, False]), nms_iou=0.5)
    np.testing.assert_array_equal(keep, [1])


def test_the_core_has_the_say_over_a_better_score():
    boxes = np.array([[0, 0, 20, 20], [1, 0, 20, 20]], "float32")
    arguments = {"owners": np.array([0, 1]), "cut": np.array([False, False]), "nms_iou": 0.5}
    scores = np.array([0.99, 0.6])
    np.testing.assert_array_equal(
        tiles.merge(boxes, scores, own=np.array([False, True]), **arguments), [1]
    )


def test_neighbours_in_one_tile_never_suppress_each_other_again():
    boxes = np.array([[0, 0, 20, 20], [0, 2, 20, 22]], "float32")
    scores, owners, own = np.array([0.9, 0.8]), np.array([0, 0]), np.array([True, True])
    keep = tiles.merge(boxes, scores, owners, own, cut=np.array([False, False]), nms_iou=0.3)
    assert sorted(keep) == [0, 1]


@pytest.mark.parametrize("shape", ((1, 1), (513, 40), (1025, 2048)))
def test_cores_divide_the_image(shape):
    covered = np.zeros(shape, int)
    for tile in tiles.grid(shape, 512):
        top, left, bottom, right = tile.core
        assert 0 < bottom - top <= 512 and 0 < right - left <= 512
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_quarters_divide_a_core():
    covered = np.zeros((31, 17), int)
    for quarter in tiles.Tile((0, 0, 31, 17)).quarters():
        top, left, bottom, right = quarter.core
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(
    "options, words",
    (({"tile": 100, "overlap": 90}, "tile=100"), ({"tile": 200, "overlap": -4}, "overlap")),
)
def test_impossible_options_are_refused_by_name(options, words):
    with pytest.raises(UserError, match=words):
        predict(model_of(), np.zeros((64, 64), "uint8"), **options)


def test_the_best_come_first_and_the_limit_counts_the_whole_image():
    image, _ = dots(40, 40)
    found = predict(model_of(), image, max_detections=7)
    everything = predict(model_of(), image)
    assert len(found) == 7
    np.testing.assert_array_equal(found.scores, np.sort(everything.scores)[::-1][:7])


def test_what_a_tile_sees_far_outside_its_core_is_its_neighbours_to_say():
    """The left tile has a false alarm in its margin that the right one, which sees all of it, does not have."""

    class Imagines(Components):
        def candidates(self, prepared):
            labels, boxes, scores = super().candidates(prepared)
            if self.calls == 1:
                labels[10:30, 540:560] = labels.max() + 1  # columns 512 to 576 are its margin
                boxes = np.concatenate([boxes, np.float32([[[10, 540, 30, 560]]])], axis=1)
                scores = np.concatenate([scores, np.float32([[0.9]])], axis=1)
            return labels, boxes, scores

    image = np.zeros((100, 1024), "uint8")
    image[40:60, 300:320] = image[40:60, 700:720] = 200
    assert predict(model_of(Imagines()), image).label_image().max() == 2
