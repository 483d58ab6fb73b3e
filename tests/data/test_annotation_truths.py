"""Annotations that are ambiguous or incomplete: each goes to its own image, absence is not emptiness, and what is no
nucleus is not counted."""

import numpy as np
import pytest
import roifile
import tifffile
from bbbc_files import png, tiny_files
from test_annotations import (  # fmt: skip
    FLAT,
    HEXAGON,
    SHAPE,
    TRIANGLE,
    coco,
    collection,
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
from nucleus_course.data.dataset import lint_dataset

AB = ("a.png", "b.png")
GOOD = {"b.json": labelme(("polygon", TRIANGLE, {}), name="b.png")}
LABELS = png(pixels(TRIANGLE, HEXAGON).astype(np.uint8))
OTHER = png(pixels(HEXAGON).astype(np.uint8))


def picture(seed):
    return png(np.random.default_rng(seed).integers(0, 60, (*SHAPE, 3)).astype(np.uint8))


def listed(*names, annotated):
    """COCO JSON of several images, of which one has an outline."""
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    data = coco([FLAT[0]]) | {"images": images}
    data["annotations"][0]["image_id"] = names.index(annotated)
    return data


def lines(source, **how):
    return [str(issue) for issue in lint_dataset(source, **how).issues]


# -------------------------------------------------------------------- which image


def two_kinds(path, files):
    """s1.png, s1.tif with another picture, and s2.png."""
    source = folder(path, files | {"s1.png": picture(1), "s2.png": picture(3)}, ())
    tifffile.imwrite(source / "s1.tif", np.full((*SHAPE, 3), 9, np.uint8))
    return source


def test_images_with_one_stem_keep_their_own_annotations(tmp_path):
    files = {"c.json": listed("s1.png", "s2.png", annotated="s1.png")}
    dataset = load_dataset(two_kinds(tmp_path / "one", files), progress=False)
    assert dataset.counts == {"s1_png": 1, "s2": 0} and dataset["s1_png"].image.max() > 9
    assert "s1.tif: an image without annotation" in str(dataset.lint.refused[0])
    files = {"c.json": listed("s1.tif", "s1.png", annotated="s1.tif")}
    dataset = load_dataset(two_kinds(tmp_path / "both", files), progress=False)
    assert dataset.counts == {"s1_png": 0, "s1_tif": 1} and dataset["s1_tif"].image.max() == 9


def test_ids_are_all_different(tmp_path):
    names = ("s1.png", "s1.bmp", "s1_png.png", "x/t.png", "y/t.png", "x__t.png")
    source = folder(tmp_path / "d", {"c.json": listed(*names, annotated="s1.png")}, names)
    assert set(load_dataset(source, progress=False).ids) == {
        "s1_png_2", "s1_bmp", "s1_png", "x__t_png", "y__t", "x__t_png_2",
    }  # fmt: skip


def test_a_label_image_that_fits_two_images_is_refused(tmp_path):
    source = two_kinds(tmp_path / "d", {"s1_masks.png": LABELS, "s2_masks.png": LABELS})
    assert load_dataset(source, progress=False).counts == {"s2": 2}
    assert [line for line in lines(source) if "refused" in line] == [
        "s1_masks.png: s1.png: the label image fits s1.tif, too: rename one of them (refused)",
        "s1_masks.png: s1.tif: the label image fits s1.png, too: rename one of them (refused)",
    ]


def test_two_label_images_of_one_image_are_named(tmp_path):
    files = {"a_cp_masks.png": LABELS, "a_masks.png": OTHER, "b_masks.png": LABELS}
    source = folder(tmp_path / "names", files, AB)
    assert load_dataset(source, progress=False).counts == {"b": 2}
    line = "a_cp_masks.png: a.png: annotated in a_cp_masks.png and in a_masks.png: keep one of them"
    assert any(text.startswith(line) for text in lines(source))
    source = folder(tmp_path / "kinds", {"a_masks.png": LABELS})
    tifffile.imwrite(source / "a_masks.tif", pixels(HEXAGON).astype(np.uint8))
    with pytest.raises(UserError, match="a_masks.png and in a_masks.tif: keep one"):
        load_dataset(source, progress=False)


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("thyroid_01", "thyroid_01"),
        ("roi1", "roi1"),
        ("annotations", "annotations"),
        ("a", "a_RoiSet"),
        ("a", "aRoiSet"),
        ("a", "a_rois"),
        ("a", "RoiSet_a"),
        ("a", "RoiSet"),
    ],
)
def test_names_of_roi_files(image, file, tmp_path):
    files = {f"{file}.zip": rois(tmp_path / "r.zip", roi(TRIANGLE), roi(HEXAGON, "2"))}
    images = (f"{image}.png",) if file == "RoiSet" else (f"{image}.png", "zz.png")
    assert load_dataset(folder(tmp_path / "d", files, images), progress=False).counts == {image: 2}


def test_letters_within_a_word_are_not_cut(tmp_path):
    files = {
        "thyroid.zip": rois(tmp_path / "r.zip", roi(TRIANGLE)),
        "b.roi": roi(HEXAGON).tobytes(),
    }
    source = folder(tmp_path / "d", files, ("thyd.png", "b.png"))
    assert load_dataset(source, progress=False).counts == {"b": 1}
    assert any("thyroid.zip: annotates 'thyroid', and no image" in line for line in lines(source))


def test_an_image_that_is_called_like_an_overlay(tmp_path):
    data = listed("s1_overlay.png", annotated="s1_overlay.png")
    source = folder(tmp_path / "alone", {"c.json": data}, ("s1_overlay.png",))
    assert load_dataset(source, progress=False).counts == {"s1_overlay": 1}
    names = ("s1.png", "s1_overlay.png", "s1_outlines.png")
    source = folder(tmp_path / "two", {"c.json": data}, names)  # one that the annotation names
    assert load_dataset(source, progress=False).counts == {"s1_overlay": 1}
    source = folder(tmp_path / "beside", {"s1_masks.png": LABELS}, names)
    assert load_dataset(source, progress=False).counts == {"s1": 2}
    assert len(lines(source)) == 1


def test_two_entries_for_one_image_are_refused(tmp_path):
    for name, data, line in (
        ("coco", listed("a.png", "a.png", annotated="a.png"), "lists two images of this name"),
        ("paths", listed("x/a.png", "y/a.png", annotated="x/a.png"), "as 'x/a.png' and as 'y/a.png'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=line):
            load_dataset(folder(tmp_path / name, {"c.json": data}), progress=False)


# -------------------------------------------------------------------- absence is not emptiness


def test_listed_without_annotation_is_said(tmp_path, capsys):
    names = ("a.png", "b.png", "c.png")
    source = folder(tmp_path / "coco", {"c.json": listed(*names, annotated="a.png")}, names)
    assert load_dataset(source).counts == {"a": 1, "b": 0, "c": 0}
    line = "c.json: 2 images without annotation: taken as images without nuclei (b.png, c.png)"
    assert line in capsys.readouterr().err
    dataset = load_dataset(source)
    assert line in capsys.readouterr().err, "from the cache, too"
    assert [issue.action for issue in dataset.subset(["a"]).lint] == ["noted"]
    assert len(lines(source)) == 1
    data = via(via_polygon(TRIANGLE)) | via(name="b.png")
    source = folder(tmp_path / "via", {"v.json": data}, AB)
    assert lines(source)[0].startswith(
        "v.json: 1 image without annotation: taken as an image without nuclei (b.png)"
    )
    assert load_dataset(source, progress=False, allow_empty=True).counts == {"a": 1, "b": 0}


def test_other_categories_alone_are_no_nuclei_and_not_unannotated(tmp_path):
    data = listed("a.png", "b.png", annotated="a.png")
    data["categories"] = [{"id": 0, "name": "nucleus"}, {"id": 1, "name": "dirt"}]
    data["annotations"].append(data["annotations"][0] | {"id": 7, "image_id": 1, "category_id": 1})
    source = folder(tmp_path / "d", {"c.json": data}, AB)
    assert load_dataset(source, progress=False).counts == {"a": 1, "b": 0} and not lines(source)


def test_an_empty_collection_of_qupath(tmp_path):
    files = {"a.geojson": collection(feature(TRIANGLE)), "b.geojson": collection()}
    source = folder(tmp_path / "d", files, AB)
    assert load_dataset(source, progress=False).counts == {"a": 1, "b": 0}
    assert lines(source)[0].startswith("b.geojson: 1 image without annotation")


def boxes_only():
    data = listed("a.png", "b.png", annotated="b.png")
    data["annotations"].append({"id": 5, "image_id": 0, "category_id": 0, "bbox": [1, 1, 5, 5]})
    return {"b.json": None, "c.json": data}


GATHERED = {"type": "GeometryCollection", "geometries": [feature(TRIANGLE)["geometry"]]}
POINT = roi(TRIANGLE, roitype=roifile.ROI_TYPE.POINT)
ROTATED = ("rotation", [(1, 1), (9, 1), (9, 9), (1, 9)], {})
DROPPED = {  # name: files beside the good one, with no outline of a nucleus for a.png
    "boxes": boxes_only(),
    "points of ImageJ": {"b.json": None, "b.roi": roi(HEXAGON).tobytes(), "a.roi": POINT.tobytes()},
    "rotated rectangles": {"a.json": labelme(ROTATED)},
    "points": {"a.json": labelme(("point", TRIANGLE[:1], {}))},
    "a collection of geometries": {
        "b.json": None,
        "b.geojson": collection(feature(TRIANGLE)),
        "a.geojson": collection(feature(TRIANGLE) | {"geometry": GATHERED}),
    },
}


@pytest.mark.parametrize("case", DROPPED)
def test_an_image_without_any_readable_shape_is_left_out(case, tmp_path):
    files = {name: data for name, data in (GOOD | DROPPED[case]).items() if data is not None}
    source = folder(tmp_path / "d", files, AB)
    for how in ({}, {"allow_empty": True}):
        assert load_dataset(source, progress=False, **how).counts == {"b": 1}
    (line,) = lines(source)
    assert "a.png: no nuclei are annotated that can be read, no outline among 1 shape (1 " in line


# -------------------------------------------------------------------- annotations beside masks


def test_annotations_beside_masks_are_noted(tmp_path, capsys):
    extra = {
        "c.json": coco([FLAT[0]]), "about.json": {"x": 1}, "bad.json": "{", "a_masks.png": LABELS,
        "rois/a.roi": roi(TRIANGLE).tobytes(), "rois/b.zip": rois(tmp_path / "r.zip", roi(TRIANGLE)),
    }  # fmt: skip
    source = folder(tmp_path / "d", tiny_files() | extra)
    dataset = load_dataset(source)
    assert set(dataset.counts.values()) == {2}
    said = capsys.readouterr().err
    for line in (
        "c.json: COCO JSON beside masks: the masks are used; choose with --annotations coco or masks",
        "a_masks.png: label images beside the images beside masks: the masks are used",
        "rois/a.roi: ImageJ ROIs and 1 more beside masks: the masks are used",
    ):
        assert said.count(line) == 1, line
    assert {issue.action for issue in dataset.lint} == {"noted"} and len(dataset.lint) == 3
    assert not load_dataset(source, annotations="masks", progress=False).lint.issues
    assert load_dataset(source, annotations="coco", progress=False).counts == {"a": 1}


# -------------------------------------------------------------------- what is no nucleus


def test_text_and_pictures_of_imagej_are_no_nuclei(tmp_path):
    made = [roi(HEXAGON)]
    for number, kind in enumerate((roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.IMAGE), 2):
        one = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=2, top=3, right=20, bottom=12)
        one.subtype, one.name, one.version = kind, str(number), 228
        made.append(one)
    source = folder(tmp_path / "d", {"a.zip": rois(tmp_path / "r.zip", *made)})
    assert np.array_equal(load_dataset(source, progress=False)["a"].labels, pixels(HEXAGON))
    assert "2 shapes that are text or pictures, dropped" in lines(source)[0]


def test_a_roi_that_is_too_large_is_said(tmp_path):
    from nucleus_course.data.annotations import imagej

    turn = np.linspace(0, 6.28, 140_000)
    large = roi(np.stack([20 + 9 * np.cos(turn), 20 + 9 * np.sin(turn)], axis=1), "large")
    assert len(large.tobytes()) > imagej.MOST
    source = folder(tmp_path / "d", {"a.zip": rois(tmp_path / "r.zip", roi(HEXAGON), large)})
    assert load_dataset(source, progress=False).counts == {"a": 1}
    assert "1 shape of more than 1 MB, dropped (ROI large)" in lines(source)[0]


@pytest.mark.parametrize("old", [False, True])
def test_cells_without_nuclei(old, tmp_path):
    def cell(ring, nucleus=None):
        more = {"nucleusGeometry": feature(nucleus)["geometry"]} if nucleus else {}
        if old:  # QuPath 0.2
            return feature(ring, **more) | {"id": "PathCellObject", "properties": {}}
        return feature(ring, "cell", **more)

    large = [(20, 15), (50, 15), (50, 45), (20, 45)]
    files = {"a.geojson": collection(cell(large, HEXAGON), cell(TRIANGLE))}
    source = folder(tmp_path / "some", files)
    assert np.array_equal(load_dataset(source, progress=False)["a"].labels, pixels(HEXAGON))
    assert "1 shape that are cells without the outline of a nucleus" in lines(source)[0]
    region = feature([(0, 0), (60, 0), (60, 48), (0, 48)])
    region |= {"id": "PathAnnotationObject", "properties": {}} if old else {}
    files = {"a.geojson": collection(cell(large), cell(TRIANGLE), region)}
    source = folder(tmp_path / "none", files)
    assert load_dataset(source, progress=False).counts == {"a": 2}
    assert lines(source)[0].startswith(
        "a.geojson: 2 cells without the outline of a nucleus: whole cells are taken for nuclei"
    )
