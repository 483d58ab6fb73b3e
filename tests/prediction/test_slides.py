"""Slides: results in pieces equal those of the whole image, only what is needed is read, and a stopped run resumes."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tifffile
from components import Components, agreement, model_of
from pycocotools import mask as coco_mask

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.data import slides as planes
from nucleus_course.data.files import Pixels
from nucleus_course.data.slides import as_plane
from nucleus_course.prediction import export_images, many, slide_nuclei, tiles
from nucleus_course.prediction.cluster import predict_many
from nucleus_course.prediction.exports import write_exports
from nucleus_course.prediction.measurements import measurement_table
from nucleus_course.prediction.outputs import Outputs
from nucleus_course.prediction.slides import Parts, detect_band, gather, plan_slide, predict_slide

POINT = Thresholds(score=0.5, min_area=5)
HOW = {"tile": 320, "overlap": 128}


class Overlapping(Components):
    """Components whose masks fill boxes larger than they are, so that neighbours overlap."""

    def candidates(self, prepared):
        labels, boxes, scores = super().candidates(prepared)
        grown = boxes + np.float32([-2, -2, 2, 2])
        centre = boxes.sum(axis=2)
        return labels, grown, 0.55 + 0.4 * np.float32(np.modf(centre * 0.0137)[0])

    def masks(self, labels, boxes, prepared, size=28):
        found = np.ones((len(boxes), size, size), "float32")
        found[:, 0] = np.modf(boxes.sum(axis=1) * 0.0171)[0][:, None]  # a rim of any probability
        return found


def nuclei_image(height=700, width=640, count=90, seed=1):
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 100, "uint16")
    y, x = np.mgrid[:height, :width]
    for _ in range(count):
        r, c, a, b = *rng.uniform(0, (height, width)), *rng.uniform(4, 22, 2)
        image[((y - r) / a) ** 2 + ((x - c) / b) ** 2 <= 1] = 3000
    return image


def model_with(engine=None, thresholds=POINT):
    model = model_of(engine or Components(), thresholds, input="canonical")
    model.predict = lambda image, **how: tiles.predict_image(model, image, thresholds, **how)
    return model


def slide(image, folder, model, how=HOW):
    """(Nuclei, Plane) of an image that is treated as a slide."""
    plane = as_plane(image)
    parts = Parts(folder, plan_slide(model, plane, model.thresholds, 0.5, how), "print")
    for number in parts.missing():
        detect_band(model, plane, model.thresholds, parts, number)
    assert not parts.missing()
    return gather(parts, model.thresholds.nms_iou, model.thresholds.min_area), plane


@pytest.mark.parametrize("engine", (Components, Overlapping))
def test_a_slide_gives_what_the_image_gives(engine, tmp_path):
    image, model = nuclei_image(), model_with(engine())
    whole = tiles.predict_image(model, image, POINT, score_threshold=0.5, progress=False, **HOW)
    labels, kept = whole.labelled()
    scores = kept.scores
    nuclei, plane = slide(image, tmp_path / "parts", model)
    found = nuclei.window(0, 0, *image.shape)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(nuclei.scores[nuclei.kept], scores)
    np.testing.assert_array_equal(nuclei.boxes, whole.boxes)
    assert nuclei.rles() == whole.rles()

    nuclei.write_labels(tmp_path / "labels.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), labels)
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.pages[0].is_tiled and file.pages[0].dtype == np.uint16

    def table_of(labels, values, scores, quality):
        more = {"properties": ("bbox", "centroid_weighted"), "quality": quality, "novelty": 0.25}
        return measurement_table(labels, values, scores, 0.5, **more)

    rows = nuclei.measure(plane, table_of)
    expected = table_of(labels, image, scores, kept.quality)
    assert [row["label"] for row in rows] == list(expected["label"])
    for name, values in expected.items():
        np.testing.assert_allclose([row[name] for row in rows], values, rtol=1e-9, err_msg=name)


def test_exports_of_a_slide_are_those_of_the_image(tmp_path, monkeypatch):
    """Written in rectangles of at most 300 pixels; every reader gets the same."""
    zarr, roifile = pytest.importorskip("zarr"), pytest.importorskip("roifile")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export_images, "CHUNK", 128)
    monkeypatch.setattr(export_images, "TILE", 128)
    monkeypatch.setattr(slide_nuclei, "WINDOW", 128)
    image = np.random.default_rng(0).integers(0, 40, (700, 640, 3)).astype("uint16")
    image[..., :] += nuclei_image()[..., None]
    nuclei, plane = slide(image, tmp_path / "parts", model_with(Overlapping()))
    labels = nuclei.read(0, 0, 700, 640)
    outputs = Outputs("rois,geojson,ome-tiff,ome-zarr,parquet", 0.5, "")
    rows = nuclei.measure(plane, lambda *a: outputs.measure(*a[:1], Pixels(a[1]), *a[2:]))
    table = {name: [row[name] for row in rows] for name in rows[0]}
    window, read, sides = nuclei.window, plane.read, []
    nuclei.window = lambda *box: sides.append(box) or window(*box)
    plane.read = lambda *box: sides.append(box) or read(*box)
    outputs.write_slide(tmp_path, "a", nuclei, plane, table)
    assert max(max(d - b, e - c) for b, c, d, e in sides) < 300
    whole = tmp_path / "whole"
    scores = nuclei.scores[nuclei.kept]
    write_exports(whole, "a", labels, scores, outputs.formats, 0.5, image, table)

    def features(folder):
        found = json.loads((folder / "geojson" / "a.geojson").read_text())["features"]
        return sorted(found, key=lambda one: int(one["properties"]["name"]))

    assert len(features(tmp_path)) == labels.max() and features(tmp_path) == features(whole)
    assert set(features(whole)[0]["properties"]["measurements"]) == {"score", "quality"}
    one, other = (
        {r.name: r.coordinates(multi=True) for r in roifile.roiread(f / "rois" / "a.zip")}
        for f in (tmp_path, whole)
    )
    assert len(one) == labels.max()
    for name, rings in other.items():
        assert all((a == b).all() for a, b in zip(rings, one[name], strict=True))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "ome-tiff" / "a.ome.tif"), labels)
    with tifffile.TiffFile(tmp_path / "ome-tiff" / "a.ome.tif") as file:
        assert file.pages[0].is_tiled and 'PhysicalSizeX="0.5"' in file.ome_metadata
    root = zarr.open_group(str(tmp_path / "ome-zarr" / "a.ome.zarr"), mode="r")
    for level in range(4):  # 700, 350, 175 and 88 pixels
        part = slice(None, None, 2**level), slice(None, None, 2**level)
        stored = np.asarray(root[f"labels/nuclei/{level}"])
        np.testing.assert_array_equal(stored, labels[part])
        np.testing.assert_array_equal(np.moveaxis(root[str(level)][:], 0, 2), image[part])
    assert "4" not in root
    assert parquet.read_table(tmp_path / "parquet" / "a.parquet").equals(
        parquet.read_table(whole / "parquet" / "a.parquet")
    )


def test_masks_are_those_that_pycocotools_reads(tmp_path):
    image = nuclei_image(300, 280, 20)
    nuclei, _ = slide(image, tmp_path, model_with(), {"tile": 200, "overlap": 96})
    union = coco_mask.decode(nuclei.rles()).any(axis=2)
    assert (union == (nuclei.window(0, 0, 300, 280) > 0)).mean() > 0.999


def test_a_window_is_a_piece_of_the_whole(tmp_path):
    nuclei, _ = slide(nuclei_image(300, 280, 20), tmp_path, model_with(Overlapping()))
    whole = nuclei.window(0, 0, 300, 280)
    np.testing.assert_array_equal(nuclei.window(40, 33, 171, 250), whole[40:171, 33:250])


def test_an_image_without_nuclei(tmp_path):
    nuclei, plane = slide(np.zeros((300, 300), "uint8"), tmp_path / "parts", model_with())
    nuclei.write_labels(tmp_path / "labels.tif")
    assert not tifffile.imread(tmp_path / "labels.tif").any() and nuclei.rles() == []
    assert nuclei.measure(plane, measurement_table) == []


def test_a_stopped_slide_goes_on_and_another_image_does_not(tmp_path):
    image, model = nuclei_image(), model_with()
    plane = as_plane(image)
    plan = plan_slide(model, plane, POINT, 0.5, HOW)
    parts = Parts(tmp_path, plan, "one")
    detect_band(model, plane, POINT, parts, 1)
    before = model.engine.calls
    again = Parts(tmp_path, plan_slide(model, plane, POINT, 0.5, HOW), "one")
    assert again.missing() == [n for n in range(len(plan.bands())) if n != 1]
    assert model.engine.calls == before
    assert len(Parts(tmp_path, plan, "two").missing()) == len(plan.bands())


def test_a_diameter_is_looked_for_in_the_sample(tmp_path):
    thresholds = dataclasses.replace(POINT, diameters=(60, 80, 100), min_area=0)
    model, image = model_with(thresholds=thresholds), nuclei_image()
    plan = plan_slide(model, as_plane(image), thresholds, 0.5, {"diameter": "auto"})
    assert 1.5 < plan.factor < 6
    plan = plan_slide(model, as_plane(image), thresholds, 0.5, {"diameter": 40})
    assert plan.factor == 2.0
    nuclei, _ = slide(image, tmp_path, model, {"diameter": 40})
    whole, _ = slide(image, tmp_path / "x", model, {"diameter": None})
    size = image.shape
    assert agreement(nuclei.window(0, 0, *size), whole.window(0, 0, *size), 0.8) > 0.97


# ------------------------------------------------------------------------------ a folder of results


@pytest.fixture
def small(monkeypatch):
    """Images of 10,000 pixels or more count as large."""
    monkeypatch.setattr(planes, "LARGE", 10_000)
    monkeypatch.setattr(many, "LARGE", 10_000)


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def test_a_slide_among_images_of_a_results_folder(small, tmp_path, capsys):
    image = nuclei_image(400, 350, 40)
    (tmp_path / "in").mkdir()
    tiff(tmp_path / "in" / "slide.tif", image, tile=(128, 128), compression="zlib")
    tiff(tmp_path / "in" / "tile.tif", image[:90, :90])
    found = predict_many(
        tmp_path / "in", tmp_path / "out", weights=model_with, progress=False, **HOW
    )
    assert found.images == 2 and "piece by piece" in capsys.readouterr().err
    expected = tiles.predict_image(model_with(), image, POINT, **HOW).labels_and_scores()[0]
    labels = tifffile.imread(tmp_path / "out" / "labels" / "slide.tif")
    assert agreement(labels.astype(int), expected) == 1.0
    with open(tmp_path / "out" / "measurements.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"] == "slide.tif"]
    assert [int(row["label"]) for row in rows] == list(range(1, labels.max() + 1))
    assert all(float(row["quality"]) == 1 for row in rows)  # the detector is sure of every pixel
    assert not (tmp_path / "out" / "parts").exists()


class Counted:
    """An array that records the size of the pieces read, standing for zarr and dask arrays."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        piece = self.array[index]
        self.largest = max(self.largest, piece.size)
        return piece


def test_python_looks_at_files_and_lazy_arrays_piece_by_piece(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planes.sample_blocks, "__defaults__", (4, 90))
    image, how = nuclei_image(180, 160, 12), {"tile": 96, "overlap": 32}
    path = tiff(tmp_path / "slide.tif", image, tile=(64, 64), compression="zlib")
    model = model_with()
    model.novelty = lambda picture: 0.5
    whole = tiles.predict_image(model, image, POINT, score_threshold=0.5, progress=False, **how)
    counted = Counted(image)
    forms = [path, str(path), counted, Counted(np.stack([image] * 3))]
    da, zarr = pytest.importorskip("dask.array"), pytest.importorskip("zarr")
    forms += [da.from_array(image, chunks=50), zarr.array(image)]
    mapped = np.memmap(tmp_path / "raw", image.dtype, "w+", shape=image.shape)
    mapped[:] = image
    for form in [*forms, mapped]:
        found = predict_slide(model, form, POINT, **how)
        np.testing.assert_array_equal(found.boxes, whole.boxes)
        np.testing.assert_array_equal(found.label_image(), whole.label_image())
        assert capsys.readouterr().err.count("piece by piece") == 1
    assert 0 < counted.largest <= 96 * 96 < image.size and found.novelty == 0.5
    few = predict_slide(model, path, POINT, max_detections=3, score_threshold=0.7, **how)
    assert few.scores.tolist() == whole.scores[:3].tolist()
    for form in (image, Counted(image[:99, :99]), tmp_path / "gone.tif", [image]):
        assert predict_slide(model, form, POINT) is None  # whole
    assert predict_slide(model, path, POINT, input="colour") is None
    with pytest.raises(UserError, match="this one has the shape"):
        predict_slide(model, Counted(np.zeros((200, 200, 7))), POINT)
    with pytest.raises(UserError, match="compute_chunk_sizes"):
        predict_slide(model, da.from_array(image, chunks=50)[da.from_array(image[:, 0]) > 0], POINT)


def test_the_labels_of_a_slide_are_no_slide(tmp_path):
    model = model_with()
    nuclei, _ = slide(nuclei_image(count=300), tmp_path, model)
    labels = nuclei.window(0, 0, 700, 640).astype("uint16")
    with pytest.raises(UserError, match="label image"):
        plan_slide(model, as_plane(labels * (labels > 0) * 7), POINT, 0.5, HOW)


def test_a_slide_that_is_interrupted_goes_on(small, tmp_path, capsys):
    class Stops(Components):
        def candidates(self, prepared):
            if self.calls == 6:
                self.calls += 1
                raise KeyboardInterrupt
            return super().candidates(prepared)

    model = model_with(Stops())
    path = tiff(tmp_path / "slide.tif", nuclei_image(), tile=(128, 128))
    options = {"weights": lambda: model, "progress": False, **HOW}
    with pytest.raises(KeyboardInterrupt):
        predict_many(path, tmp_path / "out", **options)
    calls = model.engine.calls
    predict_many(path, tmp_path / "out", resume=True, **options)
    assert "tiles done before" in capsys.readouterr().err
    tiles_of = len(tiles.grid((700, 640), 320 - 128))
    assert model.engine.calls - calls < tiles_of
    straight = predict_many(path, tmp_path / "straight", weights=model_with, progress=False, **HOW)
    one, other = (tmp_path / name / "labels" / "slide.tif" for name in ("out", "straight"))
    assert straight.nuclei and one.read_bytes() == other.read_bytes()
