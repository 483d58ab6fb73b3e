"""Opening data sets: zip and folder, records, subsets, preload, and every refusal of a source."""

import os
import zipfile

import cv2
import numpy as np
import pytest
from bbbc_files import png, square_mask, tiny_files, write_folder, write_zip

from nucleus_course._util.errors import UserError
from nucleus_course.data import load_dataset
from nucleus_course.data.labels import boxes_from_labels


@pytest.fixture(params=["folder", "zip", "zip with a folder above", "folder holding the zip"])
def source(request, tmp_path):
    files = tiny_files()
    if request.param == "folder":
        return write_folder(tmp_path / "data", files)
    if request.param == "zip":
        return write_zip(tmp_path / "data.zip", files)
    if request.param == "zip with a folder above":
        return write_zip(
            tmp_path / "data.zip", {f"stage1_train/{name}": data for name, data in files.items()}
        )
    (tmp_path / "downloads").mkdir()
    write_zip(tmp_path / "downloads" / "stage1_train.zip", files)
    return tmp_path / "downloads"


def test_records(source):
    dataset = load_dataset(source, progress=False)
    assert (
        dataset.ids == ("a", "b", "c")
        and len(dataset) == 3
        and not dataset.synthetic
        and not dataset.lint.issues
    )
    record = dataset["b"]
    assert (
        record.id == dataset[1].id == "b"
        and record.image.shape == (24, 30, 3)
        and record.image.dtype == np.uint8
    )
    assert np.array_equal(
        record.image, np.random.default_rng(1).integers(0, 60, (24, 30, 3)).astype(np.uint8)
    )
    assert record.labels.dtype == np.int32 and (record.height, record.width, record.count) == (
        24,
        30,
        2,
    )
    assert record.boxes.tolist() == [[2, 3, 7, 8], [10, 12, 17, 19]] and record.areas.tolist() == [
        25,
        49,
    ]
    assert [r.id for r in dataset] == list(dataset.ids) and [r.id for r in dataset] == [
        dataset[i].id for i in range(3)
    ]
    assert (
        dataset.counts["a"] == 2
        and dataset.sizes["a"] == (24, 30)
        and dataset.types["a"] == record.type
    )
    with pytest.raises(KeyError, match="'x'"):
        dataset["x"]
    with pytest.raises(IndexError):
        dataset[3]


def test_a_data_set_is_called_as_its_folder_or_its_zip(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "v1.2", tiny_files())
    assert load_dataset(folder, progress=False).name == "v1.2"
    assert (
        load_dataset(write_zip(tmp_path / "v1.2.zip", tiny_files()), progress=False).name == "v1.2"
    )
    monkeypatch.chdir(folder)
    assert load_dataset(".", progress=False).name == "v1.2"
    one = write_folder(
        tmp_path / "plate.7",
        {
            "images/one.png": tiny_files()["a/images/a.png"],
            "masks/m.png": tiny_files()["a/masks/m1.png"],
        },
    )
    assert load_dataset(one, progress=False).ids == ("plate.7",)


def test_preload_gives_the_same(source):
    lazy, loaded = (
        load_dataset(source, progress=False),
        load_dataset(source, progress=False).preload(),
    )
    for _, other in zip(lazy, loaded.subset(["a", "c"]).preload()):
        assert np.array_equal(lazy[other.id].image, other.image) and np.array_equal(
            lazy[other.id].labels, other.labels
        )
        other.labels[:] = 5
    assert loaded["a"].labels.max() == 2, "records do not share memory with the store"


@pytest.mark.parametrize("kind", ["grey", "rgba", "uint16", "palette", "tif"])
def test_kinds_of_image_files(kind, tmp_path):
    grey = np.random.default_rng(5).integers(0, 200, (20, 22)).astype(np.uint8)
    files = {"a/masks/m.png": png(square_mask((20, 22), 2, 2, 4))}
    expected, name = np.stack([grey] * 3, axis=2), "a/images/a.png"
    if kind == "grey":
        files[name] = png(grey)
    elif kind == "rgba":
        expected = np.dstack([grey, grey.T[:20, :20].repeat(2, axis=1)[:, :22], grey])
        files[name] = png(np.dstack([expected, np.full_like(grey, 255)]))
    elif kind == "uint16":
        files[name] = png(grey.astype(np.uint16) * 257)
    elif kind == "palette":
        from io import BytesIO

        from PIL import Image

        data = BytesIO()
        Image.fromarray(expected).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(
            data, "PNG"
        )
        files[name] = data.getvalue()
    else:
        files["a/images/a.tif"] = cv2.imencode(".tif", grey)[1].tobytes()
    record = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)["a"]
    if kind == "palette":
        assert np.abs(record.image.astype(int) - expected).mean() < 2
    else:
        assert np.array_equal(record.image, expected)


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_masks_of_any_value_and_depth(value, tmp_path):
    mask = (square_mask((24, 30), 4, 5, 6) > 0).astype(
        np.uint16 if value > 255 else np.uint8
    ) * np.array(value, np.uint16)
    files = {
        "a/images/a.png": png(np.zeros((24, 30), np.uint8)),
        "a/masks/m.png": png(mask.astype(np.uint16 if value > 255 else np.uint8)),
    }
    record = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)["a"]
    assert record.boxes.tolist() == [[4, 5, 10, 11]] and record.areas.tolist() == [36]


@pytest.mark.parametrize("kind", ["bool", "white is zero", "compressed", "16 bits", "plain", "fax"])
def test_tiff_masks_mean_their_large_values(kind, tmp_path):
    """tifffile writes a bool array as a TIFF whose zero is white; OpenCV shows that inverted."""
    import io

    import tifffile
    from PIL import Image

    mask, data = square_mask((24, 30), 4, 5, 6), io.BytesIO()
    white = {"photometric": "miniswhite"}
    if kind == "fax":
        # keeps what viewers show
        Image.fromarray(mask > 0).save(data, "TIFF", compression="group4", tiffinfo={262: 0})
        assert tifffile.TiffFile(io.BytesIO(data.getvalue())).pages[0].photometric == 0
    else:
        array, options = {
            "bool": (mask > 0, {}), "white is zero": (mask, white), "compressed": (mask, {**white, "compression": "zlib"}),
            "16 bits": (mask.astype(np.uint16) * 257, white), "plain": (mask, {}),
        }[kind]  # fmt: skip
        tifffile.imwrite(data, array, **options)
    files = {"a/images/a.png": png(np.zeros((24, 30), np.uint8)), "a/masks/m.tif": data.getvalue()}
    record = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)["a"]
    assert record.boxes.tolist() == [[4, 5, 10, 11]] and record.areas.tolist() == [36]


def test_ids_follow_the_sorted_mask_names(tmp_path):
    files = {"a/images/a.png": png(np.zeros((24, 30), np.uint8))}
    places = {"z.png": (0, 0), "b.png": (10, 10), "m.png": (10, 20)}
    for name, (top, left) in places.items():
        files[f"a/masks/{name}"] = png(square_mask((24, 30), top, left, 4))
    labels = load_dataset(write_folder(tmp_path / "d", files), progress=False)["a"].labels
    assert [labels[places[name]] for name in ("b.png", "m.png", "z.png")] == [1, 2, 3]


def test_many_nuclei(tmp_path):
    shape, files = (80, 80), {"a/images/a.png": png(np.zeros((80, 80), np.uint8))}
    for number in range(375):
        files[f"a/masks/{number:03d}.png"] = png(
            square_mask(shape, number // 25 * 5, number % 25 * 3, 2)
        )
    record = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)["a"]
    assert record.count == 375 and set(record.areas) == {4}


def test_subsets(tmp_path):
    dataset = load_dataset(
        write_zip(tmp_path / "x.zip", tiny_files([f"{n:02d}" for n in range(23)])), progress=False
    )
    validation, train = dataset.subset("validation"), dataset.subset("train")
    assert (
        validation.ids == ("00", "10", "20")
        and len(train) == 20
        and validation.split == "validation"
    )
    assert dataset.subset(["07", "03"]).ids == ("03", "07")
    with pytest.raises(UserError, match="none of its images"):
        train.subset("validation")
    assert train.subset("train").ids == train.ids
    assert load_dataset(tmp_path / "x.zip", "validation", progress=False).ids == validation.ids
    with pytest.raises(UserError, match="unknown split"):
        load_dataset(tmp_path / "x.zip", "valid", progress=False)


def test_a_refused_image_does_not_move_the_splits(tmp_path):
    files = tiny_files([f"{n:02d}" for n in range(23)])
    files["04/images/04.png"] = b"damaged"
    path = write_zip(tmp_path / "x.zip", files)
    assert load_dataset(path, "validation", progress=False).ids == ("00", "10", "20")
    assert len(load_dataset(path, "train", progress=False)) == 19
    with pytest.raises(UserError, match="no usable image"):
        load_dataset(path, ["04"], progress=False)


def bad_source(kind, folder):
    path = folder / "source"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "folder of another kind":
        write_folder(path, {"notes.txt": b"x", "pictures/a.png": png(np.zeros((4, 4), np.uint8))})
    elif kind == "image file":
        path = folder / "picture.png"
        path.write_bytes(png(np.zeros((4, 4), np.uint8)))
    elif kind == "text as zip":
        path = folder / "source.zip"
        path.write_text("this is no archive")
    elif kind == "truncated zip":
        path = write_zip(folder / "source.zip", tiny_files())
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "zip of another kind":
        path = write_zip(folder / "source.zip", {"readme.md": b"x"})
    elif kind == "empty zip":
        path = write_zip(folder / "source.zip", {})
    elif kind == "images not images":
        path = write_zip(
            folder / "source.zip", {"a/images/a.png": b"words", "a/masks/m.png": b"words"}
        )
    elif kind == "outside":
        path = write_zip(folder / "source.zip", {**tiny_files(), "../evil.png": b"x"})
    elif kind == "absolute":
        path = write_zip(folder / "source.zip", {**tiny_files(), "/etc/evil.png": b"x"})
    elif kind == "drive":
        path = write_zip(folder / "source.zip", {**tiny_files(), "C:\\evil.png": b"x"})
    return path


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", "no such file or folder"),
        ("empty folder", "folder is empty"),
        ("folder of another kind", "holds nothing in BBBC038's layout"),
        ("image file", "picture.png: a single image file"),
        ("text as zip", "not a zip archive"),
        ("truncated zip", "not a zip archive"),
        ("zip of another kind", "holds nothing in BBBC038's layout"),
        ("empty zip", "holds nothing in BBBC038's layout"),
        ("images not images", "no usable image.*a.png.*not a readable image"),
        ("outside", "'../evil.png'.*outside"),
        ("absolute", "'/etc/evil.png'.*outside"),
        ("drive", "evil.png'.*outside"),
    ],
)
def test_bad_sources(kind, message, tmp_path):
    path = bad_source(kind, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(path, progress=False)
    assert (
        str(path) in str(caught.value)
        and "\n" not in str(caught.value)
        and caught.value.exit_code == 2
    )
    assert not (tmp_path.parent / "evil.png").exists()


def test_unlabelled_images(tmp_path):
    files = {name: data for name, data in tiny_files().items() if "/masks/" not in name}
    source = write_zip(tmp_path / "stage1_test.zip", files)
    with pytest.raises(UserError, match="no nuclei are annotated in 3 images.*--allow-empty"):
        load_dataset(source, "test", progress=False)
    dataset = load_dataset(source, "test", progress=False, allow_empty=True)
    assert len(dataset) == 3 and dataset["a"].count == 0 and not dataset.lint.issues


def test_password(tmp_path):
    path = write_zip(tmp_path / "x.zip", tiny_files())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a/images/a.png")
        start = data.index(b"PK\x01\x02")
    data[info.header_offset + 6] |= 1  # the "encrypted" flag, local and central
    data[start + 8] |= 1
    path.write_bytes(data)
    dataset = load_dataset(path, progress=False)
    assert dataset.ids == ("b", "c") and "a/images/a.png" in str(dataset.lint.refused[0])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    folder = write_folder(tmp_path / "d", tiny_files())
    (folder / "a" / "images" / "a.png").chmod(0)
    assert load_dataset(folder, progress=False).ids == ("b", "c")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_to_nowhere(tmp_path):
    folder = write_folder(tmp_path / "d", tiny_files())
    os.symlink("nowhere", folder / "notes.txt")
    os.symlink("nowhere", folder / "a" / "masks" / "zz.png")
    dataset = load_dataset(folder, progress=False)
    assert dataset.ids == ("b", "c") and "a/masks/zz.png" in str(dataset.lint.refused[0])


def test_real_data(stage1):
    assert len(stage1) == 664 and len(stage1.lint.repaired) == 6 and not stage1.lint.refused
    assert set(stage1.lint.kinds) == {"overlap"}
    counts = np.array(list(stage1.counts.values()))
    assert (counts.sum(), counts.min(), np.median(counts), counts.max()) == (28986, 1, 27, 375)
    record = stage1[stage1.ids[int(counts.argmax())]]
    assert record.count == 375 and len(boxes_from_labels(record.labels)[0]) == 375


def test_the_whole_data_set_is_made_once(source, monkeypatch):
    """A grouped split needs the near-duplicates of the whole data set: they are searched only once."""
    from nucleus_course.data import duplicates

    calls = []
    original = duplicates.near_duplicate_groups
    monkeypatch.setattr(
        duplicates, "near_duplicate_groups", lambda d: calls.append(d) or original(d)
    )
    dataset = load_dataset(source, "grouped-train", progress=False)
    part = dataset.subset(dataset.ids[:1])
    assert part.whole is dataset.whole and part.whole.whole is part.whole
    assert part.whole.ids == ("a", "b", "c") and dataset.whole.groups == part.whole.groups
    dataset.whole.subset("grouped-validation"), dataset.whole.subset("grouped-train")
    assert len(calls) == 1
