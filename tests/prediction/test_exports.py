"""Every format is read by a reader that shares no code with the writer, and compared with the labels."""

import contextlib
import errno
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile

from nucleus_course._util import files
from nucleus_course._util.errors import UserError
from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.prediction import exports
from nucleus_course.prediction.exports import FORMATS, parse_formats, write_exports
from nucleus_course.prediction.measurements import measurement_table

HEIGHT, WIDTH, PIXEL = 60, 80, 0.325


def drawn(*shapes):
    """A label image: (label, rows, columns) painted in order."""
    labels = np.zeros((HEIGHT, WIDTH), "int32")
    for label, rows, columns in shapes:
        labels[rows, columns] = label
    return labels


def squares(count, side=3):
    """``count`` touching squares in rows, labels from 1 on."""
    across = int(np.ceil(np.sqrt(count)))
    grid = np.arange(1, across * across + 1).reshape(across, across)
    return np.kron(np.where(grid <= count, grid, 0), np.ones((side, side), int)).astype("int32")


CASES = {
    "hole": drawn((1, slice(2, 30), slice(3, 40)), (0, slice(8, 20), slice(9, 12)), (0, 25, 30)),
    "nucleus in a hole": drawn((1, slice(2, 30), slice(3, 40)), (2, slice(8, 20), slice(9, 30))),
    "single pixels": drawn((1, 0, 0), (2, 30, 30), (7, HEIGHT - 1, WIDTH - 1)),
    "touching": drawn((1, slice(5, 20), slice(5, 20)), (2, slice(5, 20), slice(20, 40))),
    "pieces": drawn((4, slice(2, 9), slice(2, 9)), (4, slice(20, 31), slice(50, 61)), (5, 40, 40)),
    "corner to corner": drawn((1, [3, 4, 5], [3, 4, 5]), (2, [3, 4], [4, 5])),
    "at the edge": drawn((1, slice(0, 9), slice(0, 9)), (300, slice(50, 60), slice(70, 80))),
    "empty": drawn(),
    "noise": np.random.default_rng(0).integers(0, 5, (20, 30)),
    "large labels": drawn((70_000, slice(3, 9), slice(3, 9)), (2**31 - 1, 20, 20)),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    """A label image, its labels and their scores."""
    labels = CASES[request.param]
    ids = np.unique(labels[labels > 0])
    return labels, ids.tolist(), np.linspace(0.95, 1 / 3, len(ids))


def painted(shapes, like):
    """{label: shapely geometry} as a label image: the pixels whose centres lie inside."""
    found = np.zeros(like.shape, "int64")
    for label, shape in shapes.items():
        left, top, right, bottom = map(int, shape.bounds)
        rows, columns = np.mgrid[top:bottom, left:right]
        inside = shapely.contains_xy(shape, columns + 0.5, rows + 0.5)
        found[rows[inside], columns[inside]] = label
    return found


def rois_of(path):
    """{label: geometry}, {label: score} of an ROI zip, as roifile reads it."""
    roifile = pytest.importorskip("roifile")
    rois = roifile.roiread(path)
    shapes = {}
    for roi in [rois] if isinstance(rois, roifile.ImagejRoi) else rois:
        shape = shapely.Polygon()
        for ring in roi.coordinates(multi=True):  # the rule of even and odd
            shape = shape.symmetric_difference(shapely.Polygon(ring))
        assert (roi.left, roi.top, roi.right, roi.bottom) == tuple(map(int, shape.bounds))
        shapes[int(roi.name)] = shape
    # Not by roifile, which before 2026 reads properties without their end.
    with zipfile.ZipFile(path) as archive:
        files = {int(name.removesuffix(".roi")): archive.read(name) for name in archive.namelist()}
    start, end = "score: ".encode("utf-16-be"), "\n".encode("utf-16-be")
    found = {n: data.partition(start)[2].partition(end)[0] for n, data in files.items()}
    return shapes, {n: float(text.decode("utf-16-be")) for n, text in found.items()}


def geojson_of(path):
    features = json.loads(path.read_text())["features"]
    shapes, scores = {}, {}
    for feature in features:
        properties = feature["properties"]
        assert properties["objectType"] == "detection" and feature["type"] == "Feature"
        label = int(properties["name"])
        shapes[label] = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shapes[label].is_valid, shapely.is_valid_reason(shapes[label])
        scores[label] = properties.get("measurements", {}).get("score")
    return shapes, scores


@pytest.mark.parametrize("name, read", [("rois", rois_of), ("geojson", geojson_of)])
def test_polygons_are_the_labels(tmp_path, case, name, read):
    needs(name)
    labels, ids, scores = case
    (path,) = write_exports(tmp_path, "a.b", labels, scores, [name], PIXEL)
    assert path == tmp_path / name / f"a.b{FORMATS[name][0]}"
    shapes, found = read(path)
    assert list(shapes) == ids and found == pytest.approx(dict(zip(ids, scores)), abs=1e-6)
    assert [shape.area for shape in shapes.values()] == [(labels == i).sum() for i in ids]
    assert (painted(shapes, labels) == labels).all()  # an IoU of 1


def test_ome_tiff_holds_the_labels_and_the_pixel_size(tmp_path, case):
    from xml.etree import ElementTree

    labels, _, scores = case
    (path,) = write_exports(tmp_path, "a", labels, scores, "ome-tiff", PIXEL)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and file.series[0].axes == "YX"
        assert (file.asarray() == labels).all()
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels").attrib
        tag = file.pages[0].tags["XResolution"].value
    assert pixels["Type"] == ("uint16" if labels.max() < 65536 else "uint32")
    for axis in "XY":
        assert float(pixels[f"PhysicalSize{axis}"]) == PIXEL
        assert pixels[f"PhysicalSize{axis}Unit"] == "µm"
    assert tag[0] / tag[1] == pytest.approx(
        1e4 / PIXEL, rel=1e-5
    )  # pixels a centimetre; old versions of tifffile round


def test_ome_tiff_as_ome_types_reads_it(tmp_path):
    ome_types = pytest.importorskip("ome_types")
    for labels, kind in ((CASES["touching"], "uint16"), (CASES["large labels"], "uint32")):
        (path,) = write_exports(tmp_path, kind, labels, None, "ome-tiff", PIXEL)
        pixels = ome_types.from_tiff(path).images[0].pixels
        assert (pixels.size_x, pixels.size_y, pixels.size_c) == (WIDTH, HEIGHT, 1)
        assert pixels.type.value == kind and pixels.physical_size_x == PIXEL
        assert pixels.physical_size_x_unit.value == "µm"


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_ome_zarr_holds_labels_scores_image_and_pixel_size(tmp_path, case, channels):
    zarr = pytest.importorskip("zarr")
    labels, ids, scores = case
    shape = labels.shape if channels == 1 else (*labels.shape, channels)
    image = channels and np.arange(np.prod(shape)).reshape(shape).astype(">u2")
    (path,) = write_exports(tmp_path, "a", labels, scores, "ome-zarr", PIXEL, image)
    root = zarr.open_group(str(path), mode="r")
    group = root
    if channels:
        stored = np.asarray(root["0"])
        assert ((stored if channels == 1 else np.moveaxis(stored, 0, 2)) == image).all()
        assert root["labels"].attrs["labels"] == ["nuclei"]
        assert [axis["name"] for axis in scales(root)["axes"]] == list("cyx")[channels == 1 :]
        group = root["labels/nuclei"]
    assert (np.asarray(group["0"]) == labels).all()
    about = group.attrs["image-label"]
    assert [row["label-value"] for row in about["properties"]] == ids
    assert [r["score"] for r in about["properties"]] == pytest.approx(scores.tolist(), abs=1e-6)
    assert ("source" in about) == bool(channels)
    for part in (root, group):
        one = scales(part)
        assert {a["unit"] for a in one["axes"] if a["type"] == "space"} == {"micrometer"}
        (step,) = one["datasets"][0]["coordinateTransformations"]
        assert step["scale"][-2:] == [PIXEL, PIXEL]


def scales(group):
    (one,) = group.attrs["multiscales"]
    return one


def test_levels_of_a_large_ome_zarr_halve(tmp_path):
    zarr = pytest.importorskip("zarr")
    labels = np.zeros((1500, 2300), "int32")
    labels[5:1400, 1100:2290] = 9
    labels[0, 0] = 1
    (path,) = write_exports(tmp_path, "a", labels, None, "ome-zarr")
    group = zarr.open_group(str(path), mode="r")
    for level, dataset in enumerate(scales(group)["datasets"]):
        step = 2**level
        assert (np.asarray(group[dataset["path"]]) == labels[::step, ::step]).all()
        assert dataset["coordinateTransformations"][0]["scale"] == [step, step]
    assert level == 2 and "unit" not in scales(group)["axes"][0]


@pytest.mark.parametrize("measured", [True, False])
def test_parquet_is_the_table_of_measurements(tmp_path, case, measured):
    parquet = pytest.importorskip("pyarrow.parquet")
    labels, ids, scores = case
    image = np.random.default_rng(1).integers(0, 255, labels.shape).astype("uint8")
    table = measurement_table(labels, image, scores, PIXEL, ["perimeter", "bbox"])
    (path,) = write_exports(
        tmp_path, "a", labels, scores, "parquet", PIXEL, image, table if measured else None
    )
    read = parquet.read_table(path)
    columns = read.to_pydict()
    assert columns.pop("image") == ["a"] * len(ids)
    if not measured:
        table = measurement_table(labels, image, scores, PIXEL)
    assert columns == table and columns["label"] == ids
    types = {name: str(kind) for name, kind in zip(read.column_names, read.schema.types)}
    assert (types["label"], types["touches_edge"], types["score"]) == ("int64", "bool", "double")


def test_tables_of_many_images_are_one_data_set(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("hole", "empty", "noise"):
        labels = CASES[name]
        count = len(np.unique(labels[labels > 0]))
        write_exports(tmp_path, name, labels, np.ones(count), "parquet", PIXEL)
    read = parquet.read_table(tmp_path / "parquet")
    assert sorted(set(read["image"].to_pylist())) == ["hole", "noise"]


def test_seventy_thousand_nuclei_as_polygons(tmp_path):
    labels = squares(70_000)
    (path,) = write_exports(tmp_path, "many", labels, None, "geojson")
    features = json.loads(path.read_text())["features"]
    assert [int(f["properties"]["name"]) for f in features] == list(range(1, 70_001))
    rings = np.array([f["geometry"]["coordinates"] for f in features])
    assert rings.shape == (70_000, 1, 5, 2)
    _, boxes = boxes_from_labels(labels)
    assert (np.hstack([rings.min((1, 2)), rings.max((1, 2))]) == boxes[:, [1, 0, 3, 2]]).all()


@pytest.mark.slow
def test_thousands_of_rois(tmp_path):
    roifile = pytest.importorskip("roifile")
    labels = squares(7_000)
    (path,) = write_exports(tmp_path, "many", labels, None, "rois")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        last = roifile.ImagejRoi.frombytes(archive.read(names[-1]))
    assert names == [f"{i}.roi" for i in range(1, 7_001)]
    rows, columns = np.nonzero(labels == 7_000)
    assert last.coordinates().min(0).tolist() == [columns.min(), rows.min()]


def test_seventy_thousand_nuclei_in_label_images(tmp_path):
    zarr = pytest.importorskip("zarr")
    labels = squares(70_000)
    tiff, folder = write_exports(tmp_path, "many", labels, None, "ome-tiff,ome-zarr")
    assert (tifffile.imread(tiff) == labels).all()
    assert (np.asarray(zarr.open_group(str(folder), mode="r")["0"]) == labels).all()


def needs(name):
    if FORMATS[name][2]:
        pytest.importorskip(FORMATS[name][2])


# ---------------------------------------------------------------- a full disk


@contextlib.contextmanager
def small_disk():
    """Files of more than 64 bytes cannot be written: the system's error comes in the middle of a file."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("there_before", [False, True])
def test_a_write_that_fails_leaves_nothing_half(tmp_path, name, there_before):
    needs(name)
    before = write_exports(tmp_path, "a", CASES["hole"], [0.5], name) if there_before else []
    old = contents(tmp_path)
    with pytest.raises(OSError) as caught, small_disk():
        write_exports(tmp_path, "a", CASES["noise"], None, name)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / name / f"a{FORMATS[name][0]}")
    assert contents(tmp_path) == old and bool(old) == bool(before)


@pytest.mark.parametrize("name", ["rois", "geojson", "ome-tiff", "parquet"])
def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch, name):
    needs(name)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: .*{name}/a"):
        write_exports(tmp_path, "a", CASES["hole"], None, name)
    assert contents(tmp_path) == {}


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_written_again_the_new_one_replaces_the_old(tmp_path, name):
    needs(name)
    write_exports(tmp_path, "a", CASES["noise"], None, name)
    write_exports(tmp_path, "a", CASES["hole"], None, name)
    write_exports(tmp_path / "other", "a", CASES["hole"], None, name)
    again, once = contents(tmp_path / name), contents(tmp_path / "other" / name)
    assert {p.relative_to(tmp_path / name) for p in again} == {
        p.relative_to(tmp_path / "other" / name) for p in once
    }
    if name in ("geojson", "ome-zarr"):  # the others contain a time or a random id
        assert list(again.values()) == list(once.values())


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "change, words",
    [
        ({"formats": "rois,jpeg"}, "unknown format 'jpeg'"),
        ({"labels": np.ones((4, 5))}, "float64"),
        ({"labels": np.ones((4, 5, 3), int)}, r"\(4, 5, 3\)"),
        ({"labels": -np.ones((4, 5), int)}, "4,294,967,295"),
        ({"scores": [0.5, 0.6]}, "2 scores for 1 nuclei"),
        ({"pixel_size": 0}, "pixel size 0"),
        ({"pixel_size": float("nan")}, "pixel size nan"),
        ({"image": np.zeros((5, 4))}, r"a: the image has the shape \(5, 4\)"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, change, words):
    right = {"labels": np.ones((4, 5), int), "scores": [0.5], "formats": "geojson"}
    with pytest.raises(UserError, match=words):
        write_exports(tmp_path, "a", **(right | change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name][2]])
def test_a_missing_package_is_named_before_anything_is_written(monkeypatch, name):
    def missing(package):
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(exports.importlib, "import_module", missing)
    package = FORMATS[name][2]
    with pytest.raises(UserError, match=rf"{name} needs the package {package}: pip install"):
        parse_formats(f"geojson, {name}")
    assert parse_formats("geojson, ome-tiff,geojson") == ("geojson", "ome-tiff")


# ---------------------------------------------------------------- the page of the docs


def test_the_page_lists_every_format_with_its_files_and_package():
    page = Path(__file__).parents[2] / "docs" / "exports.md"
    rows = re.findall(r"^\| `([\w-]+)` \| `(.*?)` \| .* \| (.*?) \|$", page.read_text(), re.M)
    assert [(name, file, package) for name, file, package in rows] == [
        (name, f"{name}/<stem>{ending}", f"`{package}`" if package else "-")
        for name, (ending, _, package) in FORMATS.items()
    ]


def test_the_page_lists_every_column_of_the_table():
    page = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    table = measurement_table(
        CASES["hole"], np.zeros((HEIGHT, WIDTH, 3)), [0.5], PIXEL, quality=[1], novelty=0
    )
    listed = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)*(?:, …)? \| ", page, re.M)
    words = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| `.*?\|", page, re.M))))
    assert listed and set(table) - {"mean_channel_2", "mean_channel_3"} <= words
