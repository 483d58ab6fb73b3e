"""The embedded sample: the same pixels everywhere, BBBC038's layout, all five looks, honest labels."""

import zipfile
import zlib
from importlib.resources import files

import numpy as np
import pytest
from make_sample import COUNT, sample_files, sample_images, write_sample, write_sample_zip
from sample_scenes import LOOKS, box_blur, draw_scene, largest_piece, rotation, smooth_noise
from scipy import ndimage

from nucleus_course.data import IMAGE_TYPES, load_dataset
from nucleus_course.data.read import read_image

SHIPPED = files("nucleus_course.data") / "sample.zip"


@pytest.fixture(scope="module")
def drawn():
    return list(sample_images())


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return load_dataset("sample", cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


def test_the_shipped_pixels_are_what_the_seed_gives(drawn, sample):
    assert sample.ids == tuple(image_id for image_id, _, _ in drawn) and len(drawn) == COUNT
    for image_id, image, labels in drawn:
        record = sample[image_id]
        assert np.array_equal(record.image, image), image_id
        assert np.array_equal(record.labels, labels), image_id


def test_the_shipped_bytes_are_what_the_seed_gives():
    """The bytes depend on zlib; where it compresses like the one that wrote the sample, they all agree."""
    probe, same = 0, 0
    with zipfile.ZipFile(SHIPPED) as archive:
        names = archive.namelist()
        for name, data in sample_files(count=3):
            assert name in names
            probe += 1
            same += archive.read(name) == data
            if name.endswith(".png"):
                assert np.array_equal(read_image(data), read_image(archive.read(name)))
    if zlib.ZLIB_RUNTIME_VERSION == "1.2.13":
        assert same == probe


def test_size_and_layout():
    with zipfile.ZipFile(SHIPPED) as archive:
        infos = archive.infolist()
    assert SHIPPED.stat().st_size <= 3_000_000
    assert {info.date_time for info in infos} == {(2018, 3, 1, 0, 0, 0)}
    assert infos[0].filename == "SYNTHETIC.txt"
    for info in infos[1:]:
        image_id, kind, name = info.filename.split("/")
        assert kind in ("images", "masks") and (kind == "masks" or name == f"{image_id}.png")


def test_it_says_that_it_is_synthetic(sample, tmp_path):
    assert (
        sample.synthetic
        and "synthetic" in sample.name
        and all("synthetic" in i for i in sample.ids)
    )
    own = load_dataset(write_sample(tmp_path / "mine", count=2), progress=False)
    assert own.synthetic and "synthetic" in own.name and len(own) == 2 and not own.lint.issues


def test_zip_and_folder_agree(tmp_path):
    one = load_dataset(write_sample(tmp_path / "mine", seed=5, count=2), progress=False)
    other = load_dataset(write_sample_zip(tmp_path / "mine.zip", seed=5, count=2), progress=False)
    assert all(
        np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
        for a, b in zip(one, other)
    )
    assert not np.array_equal(one[0].image, next(sample_images())[1])


def test_looks_sizes_and_crowding(sample):
    assert not sample.lint.issues
    assert set(sample.types.values()) == set(IMAGE_TYPES)
    for image_id, kind in sample.types.items():
        assert image_id.split("-", 2)[2] == kind.replace(" ", "-"), (
            "the rule sees the look that was drawn"
        )
    assert len(set(sample.sizes.values())) >= 4
    assert min(sample.counts.values()) <= 8 and max(sample.counts.values()) >= 60
    validation = sample.subset("validation")
    assert len(validation) >= 3 and len(set(validation.types.values())) == len(validation)
    assert set(sample.subset("train").types.values()) == set(IMAGE_TYPES)


def test_truth_is_sound(drawn):
    touching = cut = 0
    for image_id, image, labels in drawn:
        assert np.unique(labels).tolist() == list(range(labels.max() + 1))
        for label, place in enumerate(ndimage.find_objects(labels), 1):
            mask = labels[place] == label
            assert ndimage.label(mask)[1] == 1 and mask.sum() >= 12, (image_id, label)
        apart = ndimage.label(labels > 0)[1]
        touching += labels.max() - apart
        cut += (
            len(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))) - 1
        )
        inside, outside = image[labels > 0].mean(), image[labels == 0].mean()
        assert (inside > outside + 4) == ("fluorescent" in image_id)
    assert touching > 100 and cut > 50


def test_one_image_does_not_depend_on_the_others():
    (*_, (_, image, _)) = sample_images(seed=9, count=3)
    again = list(sample_images(seed=9, count=4))[2][1]
    assert np.array_equal(image, again)


def test_scene_options():
    look = LOOKS["small fluorescent"]

    def draw(**changes):
        options = {"count": 20, "clusters": 0, "blur": 0, "noise": 0, **changes}
        return draw_scene(np.random.Generator(np.random.PCG64(1)), look, (120, 130), **options)

    image, labels = draw()
    assert labels.max() == 20 and image.shape == (120, 130, 3)
    steps = [
        np.abs(np.diff(draw(**options)[0][..., 0].astype(int))).mean()
        for options in ({"blur": 3}, {}, {"noise": 200})
    ]
    assert steps[0] < steps[1] < steps[2]
    assert draw(count=0)[1].max() == 0


def test_building_blocks():
    random = np.random.Generator(np.random.PCG64(0))
    array = random.integers(0, 1000, (12, 15))
    padded = np.pad(array, 2, mode="edge")
    rows = np.array([[padded[r : r + 5, c + 2].sum() // 5 for c in range(15)] for r in range(12)])
    rows = np.pad(rows, ((0, 0), (2, 2)), mode="edge")
    assert np.array_equal(
        box_blur(array, 2),
        np.array([[rows[r, c : c + 5].sum() // 5 for c in range(15)] for r in range(12)]),
    )
    for _ in range(20):
        cos, sin = rotation(random)
        assert abs(cos * cos + sin * sin - 1) < 1e-12
    assert abs(smooth_noise(random, (64, 64), 3, 2)).mean() == pytest.approx(32, abs=2)
    two = np.zeros((6, 9), bool)
    two[1, 1], two[3:5, 3:6] = True, True
    assert largest_piece(two).sum() == 6 and not largest_piece(np.zeros((3, 3), bool)).any()
