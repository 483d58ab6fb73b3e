"""Crops in another look: outlines unchanged, nuclei brighter than the ground, the same seed the same crop."""

import numpy as np
import pytest
from scipy import ndimage

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.data.restyle import restyle


@pytest.fixture(scope="module")
def crop():
    """Forty discs of radius 6 on a grid, with uneven texture."""
    rows, columns = np.mgrid[:160, :160]
    near = (rows % 25 - 12) ** 2 + (columns % 25 - 12) ** 2 <= 36
    labels = ndimage.label(near)[0].astype(np.int32)
    grey = 40 + 120 * near + np.random.default_rng(0).normal(0, 5, near.shape)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), labels


def looks(crop, count=60):
    return [restyle(*crop, 1.0, np.random.default_rng(i)) for i in range(count)]


def test_never_and_always(crop):
    image, labels = crop
    random = np.random.default_rng(1)
    assert all(restyle(image, labels, 0.0, random) is image for _ in range(20))
    assert not any(np.array_equal(image, look) for look in looks(crop))


def test_the_share_is_the_probability(crop):
    random = np.random.default_rng(5)
    changed = [restyle(*crop, 0.4, random) is not crop[0] for _ in range(500)]
    assert 0.33 < np.mean(changed) < 0.47


def test_grey_of_the_same_shape_and_the_same_again_from_the_same_seed(crop):
    for first, again in zip(looks(crop, 8), looks(crop, 8)):
        assert first.shape == crop[0].shape and first.dtype == np.uint8
        assert (first == first[..., :1]).all() and np.array_equal(first, again)


def test_nuclei_are_brighter_than_what_is_around_them(crop):
    """Nuclei stay bright on dark: their median rises above that of the ring around them, in all but rare looks."""
    _, labels = crop
    ring = ndimage.binary_dilation(labels > 0, iterations=6) & (labels == 0)
    brighter = [np.median(look[labels > 0]) > np.median(look[ring]) for look in looks(crop)]
    assert np.mean(brighter) > 0.95


def test_looks_differ_more_than_light_and_noise_do(crop):
    """The share of the range that separates nuclei from their ring runs from faint to strong."""
    _, labels = crop
    ring = ndimage.binary_dilation(labels > 0, iterations=6) & (labels == 0)
    gaps = [np.median(look[labels > 0]) - np.median(look[ring]) + 0.0 for look in looks(crop)]
    assert np.percentile(gaps, 10) < 60 < 110 < np.percentile(gaps, 90)


@pytest.mark.parametrize("fill", [0, 1])
def test_a_crop_without_nuclei_and_one_without_ground(fill):
    image, labels = np.full((32, 32, 3), 90, np.uint8), np.full((32, 32), fill, np.int32)
    for seed in range(10):
        assert np.isfinite(restyle(image, labels, 1.0, np.random.default_rng(seed))).all()


def test_the_variant_and_what_it_does_not_fit():
    plain, changed = (nc.get_preset(name).augment for name in ("compact", "compact+restyled"))
    assert (plain.restyle, changed.restyle) == (0.0, 0.4)
    with pytest.raises(UserError, match="does not fit"):
        nc.get_preset("compact+colour+restyled")


def test_other_random_changes_stay_as_they_are(crop):
    """A crop that keeps its look is the one that would have come without the option."""
    plain = nc.get_preset("compact").augment
    changed = nc.get_preset("compact+restyled").augment
    kept = 0
    for index in range(30):
        seed = (1, 0, index)
        first, labels = nc.Augmenter(plain, 96)(*crop, seed)
        second, again = nc.Augmenter(changed, 96)(*crop, seed)
        assert np.array_equal(labels, again)
        kept += np.array_equal(first, second)
    assert 10 <= kept <= 25
