"""Groups of near-duplicates: quarters of one picture find each other, strangers do not."""

import numpy as np
from bbbc_files import png, square_mask, write_zip
from make_sample import sample_images

from nucleus_course.data import load_dataset, near_duplicate_groups
from nucleus_course.data.duplicates import continues, correlations


def picture(seed, shape=(128, 160)):
    """A piece of a synthetic picture with structure everywhere, uint8 (H, W, 3)."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).random(shape), 4)
    return np.dstack([(255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)] * 3)


def dataset_of(tmp_path, images):
    files = {}
    for image_id, image in images.items():
        files[f"{image_id}/images/{image_id}.png"] = png(image)
        files[f"{image_id}/masks/m.png"] = png(square_mask(image.shape[:2], 5, 5, 9))
    return load_dataset(write_zip(tmp_path / "d.zip", files), progress=False)


def quarters(image, names):
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return {
        name: image[r * height : (r + 1) * height, c * width : (c + 1) * width]
        for name, (r, c) in zip(names, ((0, 0), (0, 1), (1, 0), (1, 1)))
    }


def test_quarters_find_each_other(tmp_path):
    images = (
        quarters(picture(0), "akcz")
        | quarters(picture(1), "bymd")
        | {"single": picture(2, (64, 80)), "other size": picture(3, (64, 60))}
    )
    # another exposure
    images["again"] = np.clip(images["single"].astype(int) + 3, 0, 255).astype(np.uint8)
    dataset = dataset_of(tmp_path, images)
    assert near_duplicate_groups(dataset) == [
        ("a", "c", "k", "z"),
        ("again", "single"),
        ("b", "d", "m", "y"),
        ("other size",),
    ]
    groups = dataset.groups
    assert set(groups) == set(dataset.ids) and groups["a"] == groups["z"] != groups["b"]
    train, validation = dataset.subset("grouped-train"), dataset.subset("grouped-validation")
    assert sorted(train.ids + validation.ids) == sorted(dataset.ids)
    assert not {groups[i] for i in train.ids} & {groups[i] for i in validation.ids}


def test_blank_borders_match_nothing(tmp_path):
    blank = np.zeros((40, 40, 3), np.uint8)
    one, other = blank.copy(), blank.copy()
    one[10:20, 10:20], other[25:35, 5:12] = 200, 150
    assert near_duplicate_groups(dataset_of(tmp_path, {"a": one, "b": other})) == [("a",), ("b",)]


def test_independent_synthetic_images_are_strangers(tmp_path):
    images = {image_id: image for image_id, image, _ in sample_images(count=12)}
    assert all(len(group) == 1 for group in near_duplicate_groups(dataset_of(tmp_path, images)))


def test_correlations_against_numpy():
    rng = np.random.default_rng(0)
    one, other = (
        rng.random((3, 20)).astype(np.float32) * 9,
        rng.random((4, 20)).astype(np.float32) * 9,
    )
    expected = np.corrcoef(one, other)[:3, 3:]
    assert np.allclose(correlations(one, other), expected, atol=1e-5)
    assert (correlations(np.full((1, 20), 5, np.float32), other) == 0).all()


def test_a_border_has_one_continuation():
    """Two images could follow the first: only the better match counts."""
    place = np.arange(80)
    wave, other = np.sin(place / 6) * 40 + 100, np.cos(place / 11) * 40 + 100
    similar = wave + np.cos(place / 3) * 8
    assert np.corrcoef(wave, similar)[0, 1] > 0.9
    last, first = (
        np.stack([wave, other, other]).astype(np.float32),
        np.stack([other[::-1], similar, wave]).astype(np.float32),
    )
    found = continues(last - 10, last, first, first + 10)
    assert np.argwhere(found).tolist() == [[0, 2]]
    steep = continues(last - 1, last, first + 5, first + 6)
    assert not steep.any(), "a step five times those inside is no continuation"


def test_real_groups(stage1):
    groups = near_duplicate_groups(stage1)
    sizes = np.bincount([len(group) for group in groups])
    assert sum(len(group) for group in groups) == 664 and len(groups) == 278
    assert sizes[1] == 143 and sizes[4] == 88 and sizes.size - 1 == 12
    number = {image_id: n for n, group in enumerate(groups) for image_id in group}
    validation, train = stage1.subset("validation"), stage1.subset("train")
    seen = {number[i] for i in train.ids}
    assert sum(number[i] in seen for i in validation.ids) == 53
