"""Novelty: images unlike the training images are reported; new ones that resemble them are not."""

import numpy as np
import pytest
from scipy import ndimage
from test_canonical import field, tissue

from nucleus_course._util.errors import UserError
from nucleus_course.data import novelty
from nucleus_course.data.canonical import canonical
from nucleus_course.data.novelty import Novelty, describe, distances


class Images:
    """A data set of fields of nuclei, sparse or dense."""

    def __init__(self, count=16):
        made = {
            f"{i:02d}": field(96, 8, seed=i)[0] if i % 2 else tissue(96, 0.5, seed=i)
            for i in range(count)
        }
        self.ids, self.images = tuple(made), made

    def __iter__(self):
        from types import SimpleNamespace

        pixels = {i: np.rint(255 * image).astype("uint8") for i, image in self.images.items()}
        return (SimpleNamespace(id=i, image=pixels[i], raw=pixels[i]) for i in self.ids)


@pytest.fixture(scope="module")
def fitted():
    images = Images()
    sources = {i: ("one", "other")[int(i) // 2 % 2] for i in images.ids}
    return Novelty.fit(images, sources), images, sources


def test_distance_is_the_third_nearest_neighbours():
    rng = np.random.default_rng(0)
    known, rows = (
        rng.standard_normal((20, 27)).astype("float32"),
        rng.standard_normal((5, 27)).astype("float32"),
    )
    spread = known.std(axis=0) + 1e-3
    for row, found in zip(rows, distances(known, rows)):
        brute = sorted(
            np.sqrt(np.mean([((a - b) / s) ** 2 for a, b, s in zip(row, other, spread)]))
            for other in known
        )
        assert found == pytest.approx(brute[2], rel=1e-5)


def test_the_limit_is_that_of_left_out_sources(fitted):
    model, images, sources = fitted
    names = np.array([sources[i] for i in images.ids])
    known = np.stack([describe(canonical(r.image).image) for r in images])
    left = np.concatenate(
        [distances(known[names != n], known[names == n]) for n in ("one", "other")]
    )
    assert model.limit == pytest.approx(np.quantile(left, 0.99))
    np.testing.assert_array_equal(model.known, known)


def test_statistics_ignore_flips_and_are_finite(fitted):
    for image in (
        np.zeros((5, 3), "uint8"),
        np.full((300, 20), 255, "uint8"),
        canonical(field()[0]).image,
    ):
        values = describe(image)
        assert values.shape == (27,) and np.isfinite(values).all()
        np.testing.assert_allclose(describe(np.ascontiguousarray(image[::-1])), values, atol=2e-3)


def test_more_of_the_same_is_not_told_and_oddities_are(fitted):
    model = fitted[0]
    rng = np.random.default_rng(3)
    alike = [model(canonical(field(96, 8, seed=s)[0]).image) for s in range(100, 110)]
    assert np.mean(np.array(alike) < 1) >= 0.9
    gradient = np.tile(np.linspace(0, 255, 96), (96, 1))
    stripes = np.tile(128 + 120 * np.sin(np.arange(96) / 3.0), (96, 1))
    for odd in (gradient, stripes, rng.standard_normal((96, 96)), np.full((96, 96), 9)):
        assert model(canonical(odd).image) > 1.5


def test_saved_loaded_damaged(fitted, tmp_path):
    model = fitted[0]
    assert Novelty.load(tmp_path) is None
    model.save(tmp_path)
    again = Novelty.load(tmp_path)
    image = canonical(
        ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((64, 64)), 3)
    ).image
    assert again(image) == pytest.approx(model(image), rel=1e-3) and again.limit == model.limit
    (tmp_path / novelty.FILE).write_text('{"limit": 0, "known": []}')
    with pytest.raises(UserError, match="novelty.json is damaged"):
        Novelty.load(tmp_path)


def test_one_source_alone_sets_no_limit(fitted):
    with pytest.raises(UserError, match="two sources"):
        Novelty.fit(fitted[1], dict.fromkeys(fitted[1].ids, "one"))
