"""The disturbances that microscope, camera and file format cause in a crop."""

import dataclasses

import numpy as np
import pytest

from nucleus_course.config import AugmentConfig
from nucleus_course.data import disturb
from nucleus_course.data.augment import Augmenter

OFF = AugmentConfig.none()


def rng(seed=0):
    return np.random.default_rng(seed)


def grey(value=100, size=64):
    return np.full((size, size, 3), value, "uint8")


@pytest.mark.parametrize(
    "change", [disturb.uneven_light, disturb.haze, disturb.sharpen, disturb.jpeg]
)
def test_off_by_default(change):
    image = rng().integers(0, 256, (32, 32, 3)).astype("uint8")
    np.testing.assert_array_equal(change(image, OFF, rng(1)), image)


def test_uneven_light_is_a_smooth_factor_within_its_bounds():
    config = dataclasses.replace(OFF, shading=0.4)
    spreads = []
    for seed in range(40):
        lit = disturb.uneven_light(grey(), config, rng(seed)).astype(float)
        factor = lit[..., 0] / 100
        assert (lit[..., 0] == lit[..., 2]).all() and 0.4 < factor.min() and factor.max() < 1.6
        assert np.abs(np.diff(factor, axis=0)).max() < 0.06
        spreads.append(np.ptp(factor))
    assert max(spreads) > 0.3
    assert not disturb.uneven_light(grey(0), config, rng()).any()  # a factor keeps black


def test_haze_only_adds_light_and_spares_half_of_the_crops():
    config = dataclasses.replace(OFF, haze=0.5)
    added = [disturb.haze(grey(), config, rng(seed)).astype(int) - 100 for seed in range(200)]
    assert min(a.min() for a in added) >= 0
    assert 0.35 < np.mean([not a.any() for a in added]) < 0.65
    assert max(a.max() for a in added) <= 0.5 * 155 + 1
    assert (disturb.haze(grey(255), config, rng(3)) == 255).all()


def test_sharpening_steepens_an_edge_on_a_quarter_of_the_crops():
    edge = grey(60)
    edge[:, 32:] = 160
    config = dataclasses.replace(OFF, sharpen=2.0)
    results = [disturb.sharpen(edge, config, rng(seed)) for seed in range(200)]
    changed = [r for r in results if (r != edge).any()]
    assert 0.15 < len(changed) / 200 < 0.35
    assert all(r.max() > 160 and r.min() < 60 for r in changed)


def test_jpeg_of_a_grey_crop_stays_grey_and_near():
    config = dataclasses.replace(OFF, jpeg=1.0)
    image = np.repeat(rng().integers(90, 110, (64, 64, 1)), 3, axis=2).astype("uint8")
    for seed in range(5):
        found = disturb.jpeg(image, config, rng(seed)).astype(int)
        assert (found != image).any() and np.abs(found - image).max() < 40
        assert (found[..., 0] == found[..., 1]).all() and (found[..., 1] == found[..., 2]).all()


def test_switching_one_on_moves_no_other_random_number():
    image = rng().integers(0, 256, (80, 80, 3)).astype("uint8")
    labels = np.zeros((80, 80), "int32")
    labels[20:50, 30:60] = 1
    config = AugmentConfig(noise=6.0, contrast=0.3)
    plain = Augmenter(config, 64)(image, labels, (1, 2, 3))
    other = Augmenter(dataclasses.replace(config, jpeg=1e-9, haze=1e-9), 64)(
        image, labels, (1, 2, 3)
    )
    np.testing.assert_array_equal(plain[0], other[0])
    hazy = Augmenter(dataclasses.replace(config, haze=0.9), 64)
    results = [hazy(image, labels, (1, 2, seed)) for seed in range(8)]
    assert all(
        (a[1] == Augmenter(config, 64)(image, labels, (1, 2, seed))[1]).all()
        for seed, a in enumerate(results)
    )
    assert any(
        (a[0] != Augmenter(config, 64)(image, labels, (1, 2, seed))[0]).any()
        for seed, a in enumerate(results)
    )
