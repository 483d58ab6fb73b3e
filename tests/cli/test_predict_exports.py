"""`predict` with --export, --pixel-size and --properties, with a detector that needs no network."""

import json

import numpy as np
import pytest
import tifffile
from cli.stub import install
from PIL import Image
from terminal import one_line_error, plain, run, table
from zarrs import write_array

FORMATS = ("geojson", "ome-tiff", "ome-zarr")  # those that need no extra package


@pytest.fixture
def stub(monkeypatch):
    return install(monkeypatch.setattr)


@pytest.fixture
def images(tmp_path):
    """Three images: of two squares with a pixel size, of one square, of none."""
    folder = tmp_path / "in"
    folder.mkdir()
    two = np.zeros((24, 40), np.uint8)
    two[0:6, 4:10] = two[10:20, 20:30] = 200
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(folder / "two.ome.tif", two, ome=True, metadata={"axes": "YX", **size})
    one = two.copy()
    one[:8] = 0
    Image.fromarray(one).save(folder / "one.png")
    Image.fromarray(np.zeros_like(two)).save(folder / "none.png")
    return folder


def measured(out):
    return table(out / "measurements.csv")


def exported(out):
    """Every file of the formats, as {relative path: bytes}."""
    files = [path for name in FORMATS for path in (out / name).rglob("*") if path.is_file()]
    # Each OME-TIFF has its own identifier.
    return {p.relative_to(out).as_posix(): p.suffix != ".tif" and p.read_bytes() for p in files}


def test_every_image_in_every_format_and_units_from_the_file(stub, images, tmp_path):
    out = tmp_path / "out"
    words = ("--export", ",".join(FORMATS), "--properties", "perimeter,bbox")
    result = run("predict", images, "--out", out, *words)
    assert result.exit_code == 0, result.stderr
    assert all(f"{out / name}/" in plain(result.stdout).replace("\n", "") for name in FORMATS)
    stems = {path.stem for path in (out / "labels").iterdir()}
    assert len(stems) == 3
    for stem in stems:
        labels = tifffile.imread(out / "labels" / f"{stem}.tif")
        assert (tifffile.imread(out / "ome-tiff" / f"{stem}.ome.tif") == labels).all()
        features = json.loads((out / "geojson" / f"{stem}.geojson").read_text())["features"]
        assert len(features) == labels.max()
        assert all(f["properties"]["measurements"]["score"] == 0.9 for f in features)
        assert (out / "ome-zarr" / f"{stem}.ome.zarr" / "labels" / "nuclei" / ".zattrs").is_file()
    rows = measured(out)
    assert [row["image"] for row in rows] == ["one.png", "two.ome.tif", "two.ome.tif"]
    assert [row["area_um2"] for row in rows] == ["", "9.0", "25.0"], "where the size is known"
    assert [row["touches_edge"] for row in rows] == ["False", "True", "False"]
    assert [row["bbox-1"] for row in rows] == ["20", "4", "20"]
    assert all(row["score"] and row["perimeter"] and row["mean_brightness"] for row in rows)


def test_a_pixel_size_that_is_given_wins(stub, images, tmp_path):
    out = tmp_path / "out"
    assert run("predict", images, "--out", out, "--pixel-size", "2").exit_code == 0
    assert [row["area_um2"] for row in measured(out)] == ["400.0", "144.0", "400.0"]
    again = run("predict", images, "--out", out, "--resume", "--pixel-size", "3")
    one_line_error(again, "pixel_size 2.0, not 3.0")


def test_merge_brings_the_exports_along_and_overwrite_removes_them(stub, images, tmp_path):
    words = ("--export", ",".join(FORMATS))
    assert run("predict", images, "--out", tmp_path / "all", *words).exit_code == 0
    for part in ("1", "2"):
        there = ("--out", tmp_path / part, "--shard", f"{part}/2")
        assert run("predict", images, *there, *words).exit_code == 0
    merged = run("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "merged")
    assert merged.exit_code == 0, merged.stderr
    assert exported(tmp_path / "merged") == exported(tmp_path / "all") != {}
    assert run("predict", images, "--out", tmp_path / "all", "--overwrite").exit_code == 0
    assert exported(tmp_path / "all") == {}


@pytest.mark.parametrize(
    "option, words",
    [
        (("--export", "geojson,png"), "unknown format 'png'"),
        (("--pixel-size", "-1"), "pixel size -1"),
        (("--properties", "area,roundness"), "no property 'roundness'"),
        (("--properties", "coords"), "'coords' is not a number"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(stub, images, tmp_path, option, words):
    one_line_error(run("predict", images, "--out", tmp_path / "out", *option), words)
    assert not stub.calls and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["named", "numbered", "zarr"])
def test_the_mean_of_every_channel_of_a_file(kind, stub, tmp_path):
    dapi = np.zeros((24, 40), np.uint16)
    dapi[0:6, 4:10] = dapi[10:20, 20:30] = 200
    gfp = np.random.default_rng(1).integers(0, 900, dapi.shape).astype(np.uint16)
    stack, names = np.stack([gfp, dapi]), ("GFP", "DAPI")
    path, more = tmp_path / "a.tif", []
    if kind == "zarr":
        path, more, names = tmp_path / "a.zarr", ["--channel", "1"], ("0", "1")
        write_array(path, stack, ["c", "y", "x"])
    elif kind == "named":
        metadata = {"axes": "CYX", "Channel": {"Name": list(names)}}
        tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata=metadata)
    else:
        more, names = ["--channel", "1"], ("0", "1")
        tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "CYX"})
    out = tmp_path / "out"
    result = run("predict", path, "--out", out, *more)
    assert result.exit_code == 0, result.output
    rows = measured(out)
    assert len(rows) == 2
    for row in rows:
        inside = tifffile.imread(out / "labels" / "a.tif") == int(row["label"])
        for name, channel in zip(names, stack):
            mean = float(row[f"mean_channel_{name}"])
            assert mean == pytest.approx(channel[inside].mean(), rel=1e-4), name
        assert row["mean_brightness"] == row[f"mean_channel_{names[1]}"]
