"""Other programs' annotations: each format is written as its own program writes it, read, and compared with another
library's pixels; a faulty file gives one line that names it."""

import base64
import json
import zipfile

import numpy as np
import pytest
import roifile
from bbbc_files import png
from fakes import rle_from_mask
from pycocotools import mask as coco_mask
from skimage.draw import ellipse as draw_ellipse
from skimage.draw import polygon as draw_polygon

from nucleus_course._util.errors import UserError
from nucleus_course.data import load_dataset
from nucleus_course.data.dataset import lint_dataset
from nucleus_course.prediction.exports import write_exports

SHAPE = (48, 60)  # height, width
TRIANGLE = [(3.3, 2.2), (17.9, 4.6), (8.4, 15.7)]
HEXAGON = [(30.2, 20.1), (41.3, 22.4), (44.8, 30.6), (38.7, 38.9), (29.4, 36.2), (26.2, 28.3)]
FLAT = [np.ravel(ring).tolist() for ring in (TRIANGLE, HEXAGON)]


def pixels(*rings, shape=SHAPE):
    """A label image of the rings drawn by scikit-image, where pixel centres are whole numbers."""
    labels = np.zeros(shape, np.int32)
    for number, ring in enumerate(rings, 1):
        x, y = np.transpose(ring)
        labels[draw_polygon(y - 0.5, x - 0.5, shape)] = number
    return labels


def folder(path, files, images=("a.png",)):
    """Write {name: str, bytes or JSON}, and images of SHAPE."""
    path.mkdir(parents=True, exist_ok=True)
    picture = png(np.random.default_rng(0).integers(0, 60, (*SHAPE, 3)).astype(np.uint8))
    for name, data in {**dict.fromkeys(images, picture), **files}.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        data = data if isinstance(data, (bytes, str)) else json.dumps(data)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def coco(*segmentations, **changes):
    image = {"id": 0, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}
    rows = [
        {"id": i, "image_id": 0, "category_id": 0, "iscrowd": 0, "segmentation": s}
        for i, s in enumerate(segmentations)
    ]
    data = {"images": [image], "categories": [{"id": 0, "name": "cell"}], "annotations": rows}
    return data | changes


def labelme(*shapes, name="a.png"):
    rows = [{"label": "cell", "points": p, "shape_type": kind, **more} for kind, p, more in shapes]
    about = {"imagePath": name, "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "imageData": None}
    return {"version": "5.0", "shapes": rows, **about}


def via(*regions, name="a.png"):
    rows = [{"shape_attributes": r, "region_attributes": {"type": "cell"}} for r in regions]
    return {f"{name}99": {"filename": name, "size": 99, "regions": rows, "file_attributes": {}}}


def via_polygon(ring):
    x, y = np.transpose(ring).tolist()
    return {"name": "polygon", "all_points_x": x, "all_points_y": y}


def feature(ring, kind="annotation", **more):
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    return {"type": "Feature", "properties": {"objectType": kind}, "geometry": geometry, **more}


def collection(*features):
    return {"type": "FeatureCollection", "features": features}


def rois(path, *made):
    roifile.roiwrite(path, made, mode="w")
    return path.read_bytes()


def roi(ring, name="1", **changes):
    one = roifile.ImagejRoi.frompoints(np.float32(ring))
    one.name = name
    for key, value in changes.items():
        setattr(one, key, value)
    return one


# name: (files, what the line says)
RINGS = (TRIANGLE, HEXAGON)
SAME = {
    "coco": ({"instances.json": coco(*[[f] for f in FLAT])}, "COCO JSON (instances.json)"),
    "labelme": ({"a.json": labelme(*[("polygon", r, {}) for r in RINGS])}, "LabelMe JSON (a.json)"),
    "via": ({"v.json": via(*map(via_polygon, RINGS))}, "VGG Image Annotator JSON (v.json)"),
    "via project": (
        {"p.json": {"_via_settings": {}, "_via_img_metadata": via(*map(via_polygon, RINGS))}},
        "VGG Image Annotator JSON (p.json)",
    ),
    "qupath": ({"a.geojson": collection(*map(feature, RINGS))}, "QuPath GeoJSON (a.geojson)"),
    "qupath, a list": ({"a.geojson": [feature(r) for r in RINGS]}, "QuPath GeoJSON (a.geojson)"),
}


@pytest.mark.parametrize("form", SAME)
def test_two_polygons_in_every_json(form, tmp_path, capsys):
    files, said = SAME[form]
    source = folder(tmp_path / "data", files)
    dataset = load_dataset(source)
    wanted = pixels(*RINGS)
    if form == "coco":  # pycocotools' own rule
        rles = coco_mask.frPyObjects(FLAT, *SHAPE)
        wanted = (coco_mask.decode(rles) * np.arange(1, 3, dtype=np.uint8)).max(axis=2)
    assert dataset.ids == ("a",) and np.array_equal(dataset["a"].labels, wanted)
    assert capsys.readouterr().err.splitlines() == [f"{source}: annotations: {said}"]
    assert not dataset.lint.issues and said in dataset.lint.summary()
    (file,) = list(files)
    assert load_dataset(source / file, progress=False).counts == {"a": 2}  # the file itself
    name = form.split(",")[0].split(" ")[0]
    assert load_dataset(source, annotations=name, progress=False).counts == {"a": 2}
    other = "via" if name != "via" else "coco"
    with pytest.raises(UserError, match="holds no .* JSON"):
        load_dataset(source, annotations=other, progress=False)


def test_imagej_rois_in_a_zip_and_alone(tmp_path):
    wanted = pixels(*RINGS)
    files = {"RoiSet.zip": rois(tmp_path / "r.zip", *map(roi, RINGS, "12"))}
    dataset = load_dataset(folder(tmp_path / "zip", files), progress=False)
    assert np.array_equal(dataset["a"].labels, wanted)
    assert dataset.annotations == "ImageJ ROIs (RoiSet.zip)"
    images = ("a.png", "b.png")
    files = {"a_rois.zip": files["RoiSet.zip"], "b.roi": roi(HEXAGON).tobytes()}
    dataset = load_dataset(folder(tmp_path / "two", files, images), progress=False)
    assert np.array_equal(dataset["a"].labels, wanted)
    assert np.array_equal(dataset["b"].labels, pixels(HEXAGON))


def test_what_we_export_comes_back_as_it_was(tmp_path):
    labels = np.zeros(SHAPE, np.int32)
    labels[2:12, 3:15], labels[5:8, 6:9] = 1, 0  # a hole
    labels[20:30, 20:28] = labels[32:40, 20:28] = 2  # two pieces
    labels[40, 50], labels[2:12, 15:20] = 3, 4  # a pixel; one that touches the first
    for form, ending in (("rois", ".zip"), ("geojson", ".geojson")):
        (path,) = write_exports(tmp_path, "a", labels, [0.9] * 4, form)
        dataset = load_dataset(folder(tmp_path / f"{form}-in", {f"a{ending}": path.read_bytes()}), progress=False)  # fmt: skip
        assert np.array_equal(dataset["a"].labels, labels), form


def test_ovals_circles_rectangles_and_masks(tmp_path):
    oval = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, left=10, top=8, right=40, bottom=28)
    box = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=2, top=30, right=9, bottom=41)
    wanted = np.zeros(SHAPE, np.int32)
    wanted[draw_ellipse(17.5, 24.5, 10, 15, SHAPE)] = 1
    wanted[30:41, 2:9] = 2
    piece = np.zeros((5, 6), np.uint8)
    piece[1:4, 2:5] = 255
    masked = {"mask": base64.b64encode(png(piece)).decode()}
    cases = {
        "RoiSet.zip": rois(tmp_path / "r.zip", oval, box),
        "v.json": via(
            {"name": "ellipse", "cx": 25, "cy": 18, "rx": 15, "ry": 10, "theta": 0},
            {"name": "rect", "x": 2, "y": 30, "width": 7, "height": 11},
        ),
        "a.json": labelme(
            ("circle", [(25, 18), (25, 28)], {}),
            ("rectangle", [(9, 41), (2, 30)], {}),
            ("mask", [(50, 20), (55, 24)], masked),
        ),
    }
    for name, data in cases.items():
        labels = load_dataset(folder(tmp_path / name[0], {name: data}), progress=False)["a"].labels
        if name == "a.json":
            wanted[wanted == 1] = 0
            wanted[draw_ellipse(17.5, 24.5, 10, 10, SHAPE)] = 1
            wanted[21:24, 52:55] = 3
        assert (labels != wanted).sum() <= 4, name  # pixels whose centres are on the rim


def test_cocos_run_lengths_crowds_holes_and_foreign_ids(tmp_path):
    ring = np.zeros(SHAPE, bool)
    ring[5:20, 5:25] = True
    ring[8:15, 9:20] = False
    plain = np.zeros(SHAPE, bool)
    plain[25:40, 30:50] = True
    counts = rle_from_mask(plain)
    edges = np.flatnonzero(np.diff(np.r_[0, plain.T.ravel(), 0]))
    steps = np.diff(np.r_[0, edges, plain.size]).tolist()
    data = coco(rle_from_mask(ring), {"size": list(SHAPE), "counts": steps}, counts)
    data["annotations"][2]["iscrowd"] = 1
    for row in data["annotations"]:
        row["category_id"] = 77
    dataset = load_dataset(folder(tmp_path / "data", {"c.json": data}), progress=False)
    assert np.array_equal(dataset["a"].labels, ring * 1 + plain * 2)
    assert "1 shape that are crowds" in str(dataset.lint.issues[0])


def test_categories_are_chosen_by_name_and_said(tmp_path, capsys):
    data = coco([FLAT[0]], [FLAT[1]])
    data["categories"] = [{"id": 0, "name": "tissue"}, {"id": 5, "name": "Nucleus"}]
    data["annotations"][1]["category_id"] = 5
    source = folder(tmp_path / "data", {"c.json": data})
    assert load_dataset(source).counts == {"a": 1}
    assert "taken for nuclei: 1 Nucleus; left out: 1 tissue" in capsys.readouterr().err
    dataset = load_dataset(source, annotations="coco:tissue", progress=False)
    assert dataset["a"].labels[5, 8] == 1 and dataset.counts == {"a": 1}
    with pytest.raises(UserError, match="nothing is called mitosis; the categories are 'tissue', 'Nucleus'"):  # fmt: skip
        load_dataset(source, annotations="coco:mitosis", progress=False)
    data["categories"][1]["name"] = "tumour"
    load_dataset(folder(tmp_path / "other", {"c.json": data}))
    assert "all categories are taken for nuclei: 1 tissue, 1 tumour" in capsys.readouterr().err


def test_qupaths_cells_are_their_nuclei_and_its_regions_are_none(tmp_path):
    region = feature([(0, 0), (60, 0), (60, 48), (0, 48)])
    cell = feature([(20, 15), (50, 15), (50, 45), (20, 45)], "cell")
    cell["nucleusGeometry"] = feature(HEXAGON)["geometry"]
    files = {"a.geojson": collection(region, cell, feature(TRIANGLE, "detection"))}
    dataset = load_dataset(folder(tmp_path / "data", files), progress=False)
    assert np.array_equal(dataset["a"].labels, pixels(HEXAGON, TRIANGLE))
    assert "1 shape that are regions, not nuclei" in str(dataset.lint.issues[0])


def test_label_images_beside_their_images(tmp_path, capsys):
    labels = pixels(*RINGS)
    for ending in ("_masks", "_cp_masks", "_label"):
        source = folder(tmp_path / ending, {f"a{ending}.png": png(labels.astype(np.uint16))})
        assert np.array_equal(load_dataset(source)["a"].labels, labels)
        assert f"label images beside the images (a{ending}.png)" in capsys.readouterr().err


def test_cellposes_seg_is_not_unpickled(tmp_path):
    seg = tmp_path / "seg.npy"
    np.save(seg, {"masks": pixels(*RINGS)}, allow_pickle=True)
    source = folder(tmp_path / "data", {"a_seg.npy": seg.read_bytes()})
    for how in ({}, {"annotations": "labels"}):
        with pytest.raises(UserError, match="a_seg.npy: .*pickled.*Save masks as PNG"):
            load_dataset(source, progress=False, **how)
    folder(source, {"a_cp_masks.png": png(pixels(*RINGS).astype(np.uint8))})
    assert load_dataset(source, progress=False).counts == {"a": 2}
    np.save(seg, pixels(*RINGS))  # an array alone is read
    source = folder(tmp_path / "plain", {"a_seg.npy": seg.read_bytes()})
    assert load_dataset(source, progress=False).counts == {"a": 2}


def test_a_zip_and_folders_and_paths_of_windows(tmp_path):
    files = {"annotations/train.json": coco([FLAT[0]]) | {"images": [{"id": 0, "file_name": "images\\a.png"}]}}  # fmt: skip
    source = folder(tmp_path / "data", files, ("images/a.png",))
    assert load_dataset(source, progress=False).counts == {"a": 1}
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in source.rglob("*.*"):
            archive.write(path, path.relative_to(source).as_posix())
    assert load_dataset(tmp_path / "data.zip", progress=False).counts == {"a": 1}


def test_names_of_images_are_not_guessed(tmp_path):
    files = {
        "a.2.geojson": collection(feature(TRIANGLE)),
        "b.png.geojson": collection(feature(HEXAGON)),
    }
    images = ("a.png", "b.png")
    dataset = load_dataset(folder(tmp_path / "data", files, images), progress=False)
    assert dataset.ids == ("b",) and any(
        "annotates 'a.2', and no image" in str(i) for i in dataset.lint
    )
    files = {"c.json": coco([FLAT[0]])}
    folder(tmp_path / "two", files, ("x/a.png", "y/a.png"))
    with pytest.raises(UserError, match="annotates 'a.png', and 2 images are there by that name"):
        load_dataset(tmp_path / "two", progress=False)


GOOD = {"b.json": labelme(("polygon", TRIANGLE, {}), name="b.png")}
FAR = [(90, 10), (99, 10), (99, 20)]
# name: (files beside the good ones, image a is left out, what the line says)
BAD = {
    "outside": (labelme(("polygon", FAR, {})), True, "shape 1 lies outside the image of 60 x 48"),
    "two points": (
        labelme(("polygon", TRIANGLE[:2], {}), ("polygon", HEXAGON, {})),
        False,
        "1 shape of fewer than three points, dropped (shape 1)",
    ),
    "no image": (labelme(("polygon", HEXAGON, {}), name="c.png"), True, "annotates 'c.png', and no image"),
    "other size": (labelme() | {"imageHeight": 99}, True, "the annotation was made for 60 x 99"),
    "a point": (labelme(("point", TRIANGLE[:1], {}), ("polygon", HEXAGON, {})), False, "points or lines"),
    "not numbers": (labelme(("polygon", [["x", 1]] * 3, {}), ("polygon", HEXAGON, {})), False, "make no sense"),
    "over the edge": (labelme(("polygon", [(-9, -9), (9, -9), (9, 9)], {})), False, "1 outline cut at the image's edge"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_the_others_go_on(case, tmp_path):
    data, left_out, line = BAD[case]
    source = folder(tmp_path / "data", GOOD | {"a.json": data}, ("a.png", "b.png"))
    lines = [str(issue) for issue in lint_dataset(source).issues]
    assert sum(line in text for text in lines) == 1, lines
    assert len(lines) == (2 if case == "no image" else 1)
    counts = load_dataset(source, progress=False).counts
    assert counts == ({"b": 1} if left_out else {"a": 1, "b": 1})


def test_an_image_without_annotation_is_left_out_and_one_with_none_is_kept(tmp_path):
    data = coco([FLAT[0]])
    data["images"].append({"id": 9, "file_name": "b.png"})
    source = folder(tmp_path / "data", {"c.json": data}, ("a.png", "b.png", "c.png"))
    dataset = load_dataset(source, progress=False)
    assert dataset.counts == {"a": 1, "b": 0}
    assert "c.png: an image without annotation" in str(dataset.lint.refused[0])


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"c.json": "{"}, "c.json: not JSON"),
        ({"c.json": {"a": 1}}, "c.json: JSON, but no annotations that are read"),
        ({"c.json": coco([FLAT[0]]) | {"images": []}}, "c.json: .*COCO JSON.*image 0, which is not listed"),
        ({"c.json": coco(), "d.json": coco()}, "a.png is annotated in c.json and in d.json"),
        ({"c.json": coco(), "v.json": via()}, r"several formats, COCO JSON \(coco\), VGG.*--annotations"),
        ({"c.json": coco()}, "no nuclei are annotated in 1 image.*hold no outline"),
        ({"c.csv": "a,b"}, "c.csv is not read.*ImageJ ROIs, QuPath GeoJSON, COCO"),
        ({"c.json": coco({"size": list(SHAPE), "counts": [3, 4]})}, "annotation 0: its runs cover 7 pixels, not 2880"),
    ],
)  # fmt: skip
def test_nothing_to_learn_from(files, line, tmp_path):
    with pytest.raises(UserError, match=line) as error:
        load_dataset(folder(tmp_path / "data", files), progress=False)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_rois_of_several_planes(tmp_path):
    files = {
        "a.zip": rois(tmp_path / "r.zip", *(roi(TRIANGLE, str(z), position=z) for z in (1, 2)))
    }
    with pytest.raises(UserError, match="a.zip: .*ImageJ ROIs.*2 planes of a stack"):
        load_dataset(folder(tmp_path / "data", files), progress=False)


def test_an_unknown_format(tmp_path):
    with pytest.raises(
        UserError, match="--annotations pascal: choose auto or one of masks, labels, imagej"
    ):
        load_dataset(folder(tmp_path, {}), annotations="pascal")


def test_training_images_with_several_channels(tmp_path):
    import tifffile

    data = np.random.default_rng(2).integers(0, 255, (2, *SHAPE)).astype(np.uint8)
    for names, line in (
        (["GFP", "DAPI"], "channel 1 (DAPI) of GFP, DAPI is read"),
        (["a", "b"], ""),
    ):
        place = tmp_path / (names[0] + ".tif")
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        tifffile.imwrite(place, data, ome=True, photometric="minisblack", metadata=metadata)
        files = {"a.json": labelme(("polygon", HEXAGON, {}), name="a.tif")}
        source = folder(tmp_path / names[0], files | {"a.tif": place.read_bytes()}, ())
        first = load_dataset(source, channel=0, progress=False)
        assert np.array_equal(first["a"].image[..., 0], data[0]) and not first.lint.issues
        if line:
            dataset = load_dataset(source, progress=False)
            assert np.array_equal(dataset["a"].image[..., 0], data[1])
            (issue,) = dataset.lint.issues
            assert line in str(issue) and issue.action == "noted"
        else:
            with pytest.raises(
                UserError, match=r"a.tif: it holds 2 channels \(a, b\): choose channel"
            ):
                load_dataset(source, progress=False)
        assert not lint_dataset(source, channel="0").issues
