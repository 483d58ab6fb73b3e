"""Augmentation: image and labels stay aligned, ids survive, and the seed determines everything."""

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nucleus_course.config import AugmentConfig
from nucleus_course.data.augment import Augmenter, _Draw, _hue_saturation, _mirror, _stain

EVERYTHING = AugmentConfig(
    scale=(0.6, 1.6),
    contrast=0.3,
    brightness=0.1,
    gamma=(0.7, 1.4),
    hue=20,
    saturation=0.3,
    stain=0.15,
    invert=0.3,
    noise=8,
    elastic=1.5,
    border="reflect",
    quarter_turns=True,
    min_area=5,
    min_fraction=0.1,
)
GEOMETRY = {
    "crop": AugmentConfig.none(crop=True),
    "flips": AugmentConfig.none(crop=True, flip_horizontal=0.5, flip_vertical=0.5),
    "quarter turns": AugmentConfig.none(crop=True, quarter_turns=True),
    "paper": AugmentConfig(blur_probability=0.0),
    "rotation, mirrored": AugmentConfig(blur_probability=0.0, border="reflect"),
    "scale": AugmentConfig(blur_probability=0.0, scale=(0.6, 1.6)),
    "elastic": AugmentConfig(blur_probability=0.0, elastic=2.0, border="reflect"),
}


def scene(shape=(90, 110), count=12, seed=0):
    """Discs with ids 1..count, and an image whose red is 20 * id, green 255 - red and blue noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for label in range(1, count + 1):
        y, x, r = rng.integers(shape[0]), rng.integers(shape[1]), rng.integers(4, 10)
        labels[((rows - y) ** 2 + (cols - x) ** 2 <= r * r) & (labels == 0)] = label
    red = (20 * labels).astype(np.uint8)
    return np.dstack([red, 255 - red, rng.integers(0, 256, shape).astype(np.uint8)]), labels


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_image_and_labels_stay_aligned(name, size):
    image, labels = scene()
    augmenter = Augmenter(GEOMETRY[name], size)
    checked = 0
    for index in range(12):
        picture, truth = augmenter(image, labels, (1, 2, index))
        assert (
            picture.shape == (size, size, 3)
            and picture.dtype == np.uint8
            and picture.flags.c_contiguous
        )
        assert truth.shape == (size, size) and truth.dtype == np.int32 and truth.flags.c_contiguous
        # away from outlines
        flat = ndimage.maximum_filter(truth, 5) == ndimage.minimum_filter(truth, 5)
        flat[[0, 1, -2, -1]] = flat[:, [0, 1, -2, -1]] = False  # unknown beyond the crop
        known = flat & (truth <= labels.max()) & (truth > 0)
        assert np.array_equal(picture[..., 0][known], (20 * truth[known]).astype(np.uint8))
        assert (picture[..., 0][flat & (truth == 0)] == 0).all()
        checked += known.sum()
    assert checked > 100


@pytest.mark.parametrize("border", ["constant", "reflect"])
def test_the_warp_against_a_loop(border):
    image, labels = scene((40, 50), 8)
    config = AugmentConfig(scale=(0.7, 1.4), border=border, blur_probability=0.0)
    for index in range(6):
        draw = _Draw(config, np.random.default_rng(index), labels.shape, 24)
        picture, truth = draw.warp(image, labels)
        matrix, (height, width) = draw.matrix(), labels.shape
        for r in range(24):
            for c in range(24):
                x, y = matrix @ [c, r, 1]
                row, col = int(np.rint(y)), int(np.rint(x))
                if border == "reflect":
                    row, col = int(_mirror(row, height)), int(_mirror(col, width))
                inside = 0 <= row < height and 0 <= col < width
                nearest = 0.5 - max(abs(y - np.rint(y)), abs(x - np.rint(x))) > 1e-3
                flip = truth[::-1] if draw.flips[0] else truth
                flip = flip[:, ::-1] if draw.flips[1] else flip
                if nearest:
                    assert flip[r, c] == (labels[row, col] if inside else 0)


def test_the_warp_against_scipy():
    """Bilinear values agree with scipy's within OpenCV's fixed-point rounding."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.random((60, 70, 3)), (3, 3, 0))
    image = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    draw = _Draw(
        AugmentConfig(scale=(1.3, 1.3), flip_horizontal=0, flip_vertical=0),
        np.random.default_rng(4),
        (60, 70),
        20,
    )
    picture, _ = draw.warp(image, np.zeros((60, 70), np.int32))
    (a, b, c), (d, e, f) = draw.matrix()
    for channel in range(3):
        expected = ndimage.affine_transform(
            image[..., channel].astype(float),
            [[e, d], [b, a]],
            [f, c],
            (20, 20),
            order=1,
            mode="constant",
        )
        assert np.abs(picture[1:-1, 1:-1, channel] - expected[1:-1, 1:-1]).max() < 4


def test_the_middle_stays_the_middle():
    """Half-pixel centres: the centre of the crop shows the same point whatever the angle and scale."""
    for angle in (0.0, 0.3, 2.0):
        draw = _Draw(AugmentConfig.none(), np.random.default_rng(0), (101, 81), 33)
        draw.angle, draw.zoom = angle, 1.7
        assert np.allclose(draw.matrix() @ [16, 16, 1], draw.centre[::-1] - 0.5)


def test_nothing_random_is_the_centre():
    image, labels = scene()
    picture, truth = Augmenter(AugmentConfig.none(), 40)(image, labels, (0, 0, 0))
    assert np.array_equal(picture, image[25:65, 35:75]) and np.array_equal(
        truth, labels[25:65, 35:75]
    )


def test_crops_and_flips_are_exact_and_reach_everywhere():
    image, labels = scene((20, 23))
    image[..., 0], image[..., 1] = np.mgrid[:20, :23]
    augmenter = Augmenter(GEOMETRY["flips"], 16)
    seen = set()
    for index in range(600):
        picture, truth = augmenter(image, labels, (0, 0, index))
        vertical, horizontal = (
            picture[0, 0, 0] > picture[-1, 0, 0],
            picture[0, 0, 1] > picture[0, -1, 1],
        )
        top, left = picture[..., 0].min(), picture[..., 1].min()
        expected, expected_labels = (
            image[top : top + 16, left : left + 16],
            labels[top : top + 16, left : left + 16],
        )
        for axis, flip in enumerate((vertical, horizontal)):
            if flip:
                expected, expected_labels = np.flip(expected, axis), np.flip(expected_labels, axis)
        assert np.array_equal(picture, expected) and np.array_equal(truth, expected_labels)
        seen.add((int(top), int(left), bool(vertical), bool(horizontal)))
    assert {s[:2] for s in seen} == {(r, c) for r in range(5) for c in range(8)}
    assert {s[2:] for s in seen} == {(False, False), (False, True), (True, False), (True, True)}


def test_rotations_cover_the_circle():
    angles = [
        _Draw(AugmentConfig(), np.random.default_rng(i), (50, 50), 20).angle for i in range(300)
    ]
    counts = np.histogram(angles, 6, (-np.pi, np.pi))[0]
    assert counts.min() > 25


@pytest.mark.parametrize("config", [AugmentConfig(), EVERYTHING], ids=["paper", "everything"])
def test_reproducible_whatever_the_threads(config):
    image, labels = scene()
    augmenter = Augmenter(config, 48)
    seeds = [(7, 3, index) for index in range(40)]
    serial = [augmenter(image, labels, seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(
            pool.map(lambda seed: Augmenter(config, 48)(image, labels, seed), reversed(seeds))
        )[::-1]
    for one, other in zip(serial, parallel):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    assert len({picture.tobytes() for picture, _ in serial}) == 40
    for other in ((8, 3, 0), (7, 4, 0)):
        assert not np.array_equal(augmenter(image, labels, other)[0], serial[0][0])


def test_colour_options_do_not_move_the_crop():
    image, labels = scene()
    plain = Augmenter(AugmentConfig(), 48)
    coloured = Augmenter(
        AugmentConfig(gamma=(0.5, 2), hue=20, stain=0.2, noise=5, invert=0.5, contrast=0.5), 48
    )
    for index in range(5):
        assert np.array_equal(
            plain(image, labels, (0, 0, index))[1], coloured(image, labels, (0, 0, index))[1]
        )


def test_inputs_are_not_changed():
    image, labels = scene()
    copies = image.copy(), labels.copy()
    for index in range(5):
        Augmenter(EVERYTHING, 120)(image, labels, (0, 0, index))
    assert np.array_equal(image, copies[0]) and np.array_equal(labels, copies[1])


def test_ids_survive():
    image, labels = scene()
    labels = labels * 7
    for index in range(10):
        truth = Augmenter(AugmentConfig(), 64)(image, labels, (0, 0, index))[1]
        assert set(np.unique(truth)) <= set(np.unique(labels))


def test_pieces_of_one_nucleus_keep_its_id():
    labels = np.zeros((40, 40), np.int32)
    labels[5:35, 5:35] = 3
    labels[10:35, 10:30] = 0  # a U turned over: a crop of its legs shows two pieces
    image = np.zeros((40, 40, 3), np.uint8)
    config = AugmentConfig.none(border="reflect")
    truth = Augmenter(config, 24)(image, labels, (0, 0, 0))[1]
    assert set(np.unique(truth[4:])) == {0, 3} and ndimage.label(truth == 3)[1] in (1, 2)
    lower = Augmenter(config, 24)(image[12:36], labels[12:36], (0, 0, 0))[1]
    assert ndimage.label(lower > 0)[1] == 2 and set(np.unique(lower)) == {0, 3}


def test_mirrored_nuclei_get_ids_of_their_own():
    labels = np.zeros((20, 20), np.int32)
    labels[5:9, 5:9] = 1  # away from the edge: its mirror images are other nuclei
    labels[12:16, 0:4] = 2  # at the edge: it and its mirror image are one object
    image = np.dstack([(labels * 50).astype(np.uint8)] * 3)
    picture, truth = Augmenter(AugmentConfig.none(border="reflect"), 40)(image, labels, (0, 0, 0))
    assert np.array_equal(picture, np.pad(image, ((10, 10), (10, 10), (0, 0)), mode="symmetric"))
    mirrored = np.pad(labels, 10, mode="symmetric")
    assert np.array_equal(truth > 0, mirrored > 0), "every nucleus that is seen is labelled"
    pieces, count = ndimage.label(truth > 0, np.ones((3, 3)))
    assert len(set(truth[truth > 0])) == count, "one id a piece"
    assert np.array_equal(truth[10:30, 10:30], labels), "originals keep theirs"
    assert (truth[22:26, 6:10] == 2).all(), "grown together over the edge"
    assert sorted(set(truth[truth > 0])) == [1, 2, *range(3, 3 + count - 2)]


def test_constant_border_is_fill_without_nuclei():
    image, labels = scene((20, 20))
    picture, truth = Augmenter(AugmentConfig.none(fill=9), 30)(image, labels, (0, 0, 0))
    outside = np.ones((30, 30), bool)
    outside[5:25, 5:25] = False
    assert (picture[outside] == 9).all() and (truth[outside] == 0).all()
    assert np.array_equal(picture[~outside].reshape(20, 20, 3), image) and np.array_equal(
        truth[~outside].reshape(20, 20), labels
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (256, 256)])
@pytest.mark.parametrize("config", [AugmentConfig(), EVERYTHING], ids=["paper", "everything"])
def test_odd_sizes_and_no_nuclei(shape, config):
    picture, truth = Augmenter(config, 160)(
        np.full((*shape, 3), 90, np.uint8), np.zeros(shape, np.int32), (0, 0, 1)
    )
    assert picture.shape == (160, 160, 3) and not truth.any()


def test_slivers():
    labels = np.zeros((40, 40), np.int32)
    labels[0:20, 9:19] = (
        1  # the crop below starts at (10, 10): 10 of its 20 rows, 9 of 10 columns stay
    )
    labels[20:30, 2:11] = 2  # one column of nine stays: 10 of 90 pixels
    labels[20:22, 20:22] = 3  # small, but whole
    image = np.zeros((40, 40, 3), np.uint8)

    def left(**options):
        return set(
            np.unique(Augmenter(AugmentConfig.none(**options), 20)(image, labels, (0, 0, 0))[1])
        ) - {0}

    assert left() == {1, 2, 3}
    assert left(min_area=11) == {1, 3} and left(min_area=10) == {1, 2, 3}
    assert left(min_fraction=0.2) == {1, 3} and left(min_fraction=0.5) == {3}
    assert left(min_area=200, min_fraction=0.2) == {1, 3} and left(
        min_area=5, min_fraction=0.5
    ) == {1, 2, 3}


def test_blur_is_gaussian():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    config = AugmentConfig.none(blur=(1.5, 1.5), blur_probability=1.0)
    picture, _ = Augmenter(config, 41)(image, np.zeros((41, 41), np.int32), (0, 0, 0))
    # imgaug cuts its kernel at 5 pixels
    expected = ndimage.gaussian_filter(image[..., 0].astype(float), 1.5)
    assert (
        np.abs(picture[..., 0] - expected).max() < 4 and abs(int(picture[..., 0].sum()) - 255) < 20
    )


def test_inversion():
    image, labels = scene()
    config = AugmentConfig.none(invert=1.0)
    assert np.array_equal(
        Augmenter(config, 40)(image, labels, (0, 0, 0))[0], 255 - image[25:65, 35:75]
    )


def test_stain_multiplies_optical_density():
    image = np.random.default_rng(0).integers(20, 230, (30, 30, 3)).astype(np.uint8)
    gain = np.array([1.2, 0.9, 1.0])
    density, changed = (
        -np.log10((a.astype(float) + 1) / 256) for a in (image, _stain(image, gain, np.zeros(3)))
    )
    assert np.abs(changed - density * gain).max() < 0.03
    assert np.array_equal(_stain(image, np.ones(3), np.zeros(3)), image)


def test_hue_keeps_brightness_and_grey():
    image = np.random.default_rng(0).integers(90, 160, (30, 30, 3)).astype(np.uint8)
    weights = [0.299, 0.587, 0.114]
    turned = _hue_saturation(image, np.deg2rad(30), 0.8)
    assert (
        np.abs(turned @ weights - image @ weights).max() < 1.5
        and np.abs(turned.astype(int) - image).max() > 10
    )
    grey = np.dstack([image[..., 0]] * 3)
    assert np.abs(_hue_saturation(grey, 1.0, 1.3).astype(int) - grey).max() <= 1


def test_grey_crops_stay_grey():
    labels = np.zeros((50, 50), np.int32)
    grey = np.dstack([np.random.default_rng(0).integers(0, 256, (50, 50)).astype(np.uint8)] * 3)
    for index in range(10):
        picture = Augmenter(EVERYTHING, 40)(grey, labels, (0, 0, index))[0]
        assert np.ptp(picture.astype(int), axis=2).max() == 0


def test_elastic_moves_by_the_stated_amount():
    draws = [
        _Draw(AugmentConfig.none(elastic=2.0), np.random.default_rng(i), (200, 200), 160)
        for i in range(30)
    ]
    moved = np.concatenate([(d._coordinates()[0] - 20 - np.arange(160)).ravel() for d in draws])
    assert 1.0 < moved.std() < 2.2


@pytest.mark.parametrize(
    "bad",
    [
        {"rotation": -1},
        {"scale": (0, 1)},
        {"scale": (2, 1)},
        {"border": "wrap"},
        {"gamma": (0.0, 1.0)},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentConfig(**bad)


def test_config_through_json():
    config = AugmentConfig(**json.loads(json.dumps(dataclasses.asdict(EVERYTHING))))
    assert config == EVERYTHING and hash(config) == hash(EVERYTHING)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rotation = 3


def test_misfits_are_named():
    with pytest.raises(ValueError, match="differ in size"):
        Augmenter(AugmentConfig(), 8)(
            np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.int32), (0, 0, 0)
        )
    with pytest.raises(ValueError, match="size"):
        Augmenter(AugmentConfig(), 0)


def test_the_config_costs_no_import():
    code = "import sys, nucleus_course.data.augment; print({'cv2', 'imgaug', 'scipy', 'keras'} & set(sys.modules))"
    root = str(Path(__file__).parents[2])
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
        ).stdout.strip()
        == "set()"
    )
