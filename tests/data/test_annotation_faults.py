"""Damaged annotations are named in one line, and the other images of the data set are read all the same."""

import base64
import io
import json
import os
import sys
import zipfile

import numpy as np
import pytest
import tifffile
from bbbc_files import png, square_mask, tiny_files, write_folder
from test_annotation_truths import AB, GOOD, OTHER, lines, listed, picture
from test_annotations import (  # fmt: skip
    HEXAGON,
    SHAPE,
    TRIANGLE,
    feature,
    folder,
    labelme,
    pixels,
    roi,
    rois,
    via,
    via_polygon,
)

from nucleus_course._util.errors import UserError
from nucleus_course.data import load_dataset
from nucleus_course.data.cache import cache_folder

# -------------------------------------------------------------------- one bad file among others

GATHERED = {"type": "GeometryCollection", "geometries": [feature(TRIANGLE)["geometry"]]}


def damaged_zip(path, *made):
    data = bytearray(rois(path, *made))
    data[data.find(b"Iout") + 70] ^= 255
    return bytes(data)


INFINITE = ("mask", [(float("inf"), 1), (3, 3)], {"mask": base64.b64encode(OTHER).decode()})
BAD = {  # name: (the file of a.png, its content, what is said)
    "cut JSON": ("a.json", '{"shapes": [{"la', "not JSON (Unterminated"),
    "a mask at infinity": ("a.json", labelme(INFINITE), "1 that make no sense: shape 1"),
    "a shape that is text": ("a.json", labelme() | {"shapes": ["oops"]}, "1 that make no sense"),
    "a size in words": ("a.json", labelme() | {"imageHeight": "tall"}, "'tall' pixels"),
    "regions that are none": ("a.json", via() | {"a": {"filename": "a.png", "regions": None}}, ""),
    "bare geometries": ("a.geojson", GATHERED, "JSON, but no annotations that are read"),
    "no ROI": ("a.roi", "words", "no ROI of ImageJ"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_file_is_named_and_the_others_go_on(case, tmp_path):
    file, data, said = BAD[case]
    good = {"v.json": via(via_polygon(TRIANGLE), name="b.png")} if "regions" in case else GOOD
    if "regions" in case:
        good["v.json"] |= {"a": data["a"]}
        file, data, said = "v.json", good["v.json"], "no outline among 1 shape"
    source = folder(tmp_path / "d", good | {file: data}, AB)
    assert load_dataset(source, progress=False).counts == {"b": 1}
    (line,) = lines(source)
    assert line.startswith(f"{file}: a.png: ") and said in line and "\n" not in line


def test_a_number_as_text_is_a_number(tmp_path):
    data = labelme(("polygon", TRIANGLE, {})) | {"imageHeight": str(SHAPE[0])}
    assert load_dataset(folder(tmp_path / "d", {"a.json": data}), progress=False).counts == {"a": 1}


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": list(SHAPE), "counts": ["5", 2875]},
        {"size": list(SHAPE), "counts": [None]},
        {"size": list(SHAPE), "counts": [[1]]},
        {"size": list(SHAPE), "counts": [float("inf")]},
        {"size": list(SHAPE), "counts": [2.5, 2877.5]},
        {"size": [None, None], "counts": "abc"},
        {"size": [float("inf"), 60], "counts": [2880]},
        {"size": [64], "counts": [2880]},
        {"size": "64", "counts": [2880]},
        {"size": list(SHAPE), "counts": ""},
    ],
)
def test_run_lengths_of_anything(segmentation, tmp_path):
    data = listed("a.png", "b.png", annotated="b.png")
    data["annotations"].append(
        {"id": 7, "image_id": 0, "category_id": 0, "segmentation": segmentation}
    )
    source = folder(tmp_path / "d", {"c.json": data}, AB)
    assert load_dataset(source, progress=False).counts == {"b": 1}
    (line,) = lines(source)
    assert line.startswith("c.json: a.png: annotation 7: ")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", ["a.json", "a.zip", "a.roi", "a.geojson"])
def test_an_annotation_that_is_a_broken_link(name, tmp_path):
    zips = {"b.zip": rois(tmp_path / "b.zip", roi(TRIANGLE))}
    source = folder(tmp_path / "d", zips if name == "a.zip" else GOOD, AB)
    os.symlink("nowhere", source / name)
    assert load_dataset(source, progress=False).counts == {"b": 1}
    assert lines(source) == [f"{name}: a.png: cannot be read (No such file or directory) (refused)"]
    assert len(list(cache_folder().glob("d-*.zip"))) == 1, "the link's end is in the fingerprint"


def test_damaged_rois(tmp_path):
    made = roi(TRIANGLE), roi(HEXAGON, "2")
    planes = roi(TRIANGLE, position=1), roi(HEXAGON, "2", position=2)
    good = {"b.zip": rois(tmp_path / "b.zip", made[0])}
    whole = rois(tmp_path / "w.zip", *made)
    cases = (
        (damaged_zip(tmp_path / "r.zip", *made), "cannot be read as ImageJ ROIs: Bad CRC-32"),
        (whole[:-30], "a damaged zip archive"),
        (
            rois(tmp_path / "p.zip", *planes),
            "cannot be read as ImageJ ROIs: its ROIs lie on 2 planes",
        ),
    )
    for number, (data, said) in enumerate(cases):
        source = folder(tmp_path / str(number), good | {"a.zip": data}, AB)
        assert load_dataset(source, progress=False).counts == {"b": 1}
        (line,) = lines(source)
        assert line.startswith(f"a.zip: a.png: {said}")


def test_a_zip_with_a_damaged_json(tmp_path):
    source = folder(tmp_path / "d", GOOD | {"a.json": labelme() | {"mark": "MARK"}}, AB)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, path.name)
    data = (tmp_path / "d.zip").read_bytes().replace(b"MARK", b"MARX", 1)
    (tmp_path / "d.zip").write_bytes(data)
    assert load_dataset(tmp_path / "d.zip", progress=False).counts == {"b": 1}
    (line,) = lines(tmp_path / "d.zip")
    assert line.startswith("a.json: a.png: cannot be read (Bad CRC-32")


def test_damaged_files_without_an_image_and_other_json(tmp_path):
    files = GOOD | {"zz.json": "{", "about.json": {"author": "x"}, "more.json": [1]}
    source = folder(tmp_path / "d", files, ("b.png",))
    assert load_dataset(source, progress=False).counts == {"b": 1}
    first, second = lines(source)
    assert first.startswith("zz.json: not JSON") and first.endswith("(refused)")
    assert second.startswith("about.json: JSON, but no annotations") and "1 more like it" in second
    assert load_dataset(source, annotations="labelme", progress=False).counts == {"b": 1}
    with pytest.raises(UserError, match="zz.json: not JSON"):
        load_dataset(source, strict=True, progress=False)
    with pytest.raises(UserError, match="zz.json: not JSON"):  # the file that was asked for
        load_dataset(source / "zz.json", progress=False)


def test_a_damaged_file_is_named_before_images_are_taken_for_empty(tmp_path):
    files = {"a/images/a.png": picture(1), "x.json": b"{"}
    source = write_folder(tmp_path / "d", files)
    dataset = load_dataset(source, progress=False, allow_empty=True)
    assert dataset.counts == {"a": 0} and "x.json: not JSON" in str(dataset.lint.refused[0])


def test_a_seg_file_without_label_image_among_others(tmp_path):
    seg = tmp_path / "seg.npy"
    np.save(seg, {"masks": 1}, allow_pickle=True)
    source = folder(tmp_path / "d", {"a_seg.npy": seg.read_bytes(), "b_masks.png": OTHER}, AB)
    assert load_dataset(source, progress=False).counts == {"b": 1}
    assert "a_seg.npy: a.png: Cellpose's _seg.npy holds pickled" in lines(source)[0]


# -------------------------------------------------------------------- what is not kept in the cache


def test_a_missing_package_is_not_remembered(tmp_path, monkeypatch, capsys):
    pytest.importorskip("zarr")
    about = {"shape": SHAPE, "chunks": SHAPE, "dtype": "|u1", "compressor": None, "filters": None}
    about |= {"zarr_format": 2, "fill_value": 0, "order": "C"}
    files = {"a.zarr/.zarray": about, "a.zarr/0.0": bytes(SHAPE[0] * SHAPE[1])}
    files |= {"a_masks.png": OTHER, "b_masks.png": OTHER}
    source = folder(tmp_path / "d", files, ("b.png",))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "zarr", None)
        assert load_dataset(source).counts == {"b": 1}
        assert "decoded again next time: a.zarr may be readable" in capsys.readouterr().err
    assert load_dataset(source, progress=False).counts == {"a": 1, "b": 1}
    assert len(list(cache_folder().glob("d-*.zip"))) == 1


@pytest.mark.parametrize("name", ["b/images/b.png", "b/masks/m1.png"])
@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(5, "Input/output error")])
def test_a_failure_to_read_is_not_remembered(name, error, tmp_path, monkeypatch):
    from nucleus_course.data.bbbc038 import FolderSource

    source = write_folder(tmp_path / "d", tiny_files())
    original = FolderSource.read

    def failing(self, asked):
        if asked == name:
            raise error
        return original(self, asked)

    with monkeypatch.context() as denied:
        denied.setattr(FolderSource, "read", failing)
        assert load_dataset(source, progress=False).ids == ("a", "c")
    assert load_dataset(source, progress=False).ids == ("a", "b", "c")


def test_an_annotation_that_could_not_be_read_is_not_remembered(tmp_path, monkeypatch):
    from nucleus_course.data.bbbc038 import FolderSource

    source = folder(tmp_path / "d", GOOD | {"a.json": labelme(("polygon", HEXAGON, {}))}, AB)
    original = FolderSource.read

    def failing(self, asked):
        if asked == "a.json":
            raise PermissionError(13, "Permission denied")
        return original(self, asked)

    with monkeypatch.context() as denied:
        denied.setattr(FolderSource, "read", failing)
        dataset = load_dataset(source, progress=False)
    assert "a.json: a.png: cannot be read (Permission denied)" in str(dataset.lint.refused[0])
    assert load_dataset(source, progress=False).counts == {"a": 1, "b": 1}


def test_damage_is_remembered(tmp_path):
    files = tiny_files() | {
        "b/images/b.png": b"words",
        "c/masks/m1.png": png(square_mask((24, 30), 2, 3, 5))[:-20],
    }
    load_dataset(write_folder(tmp_path / "d", files), progress=False)
    assert len(list(cache_folder().glob("d-*.zip"))) == 1


# -------------------------------------------------------------------- JPEG 2000


@pytest.mark.parametrize("lossless", [True, False])
def test_a_label_image_in_jpeg_2000(lossless, tmp_path):
    data = io.BytesIO()
    options = {} if lossless else {"compressionargs": {"level": 40}}
    labels = pixels(TRIANGLE, HEXAGON).astype(np.uint16)
    tifffile.imwrite(data, labels, compression="jpeg2000", **options)
    source = folder(tmp_path / "d", {"a_masks.tif": data.getvalue()})
    if lossless:
        assert np.array_equal(load_dataset(source, progress=False)["a"].labels, labels)
    else:
        with pytest.raises(UserError, match="a_masks.tif: a mask as JPEG, which changes values"):
            load_dataset(source, progress=False)


def test_json_is_still_valid_after_all(tmp_path):
    """A byte order mark, and a file of annotations that is given itself."""
    text = "\ufeff" + json.dumps(labelme(("polygon", TRIANGLE, {})))
    source = folder(tmp_path / "d", {"a.json": text})
    assert load_dataset(source / "a.json", progress=False).counts == {"a": 1}


def test_a_zip_that_is_none(tmp_path):
    files = {"b.zip": rois(tmp_path / "b.zip", roi(TRIANGLE)), "a.zip": "words"}
    assert lines(folder(tmp_path / "d", files, AB)) == [
        "a.zip: a.png: a damaged zip archive: copy or save it again (refused)"
    ]
