"""The tables of docs/formats.md: a file of each row, written by another library, is read with the right values."""

import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import tifffile
from bbbc_files import png, tiny_files, write_folder
from PIL import Image
from test_annotations import (  # fmt: skip
    FLAT,
    RINGS,
    coco,
    feature,
    folder,
    labelme,
    pixels,
    roi,
    rois,
    via,
    via_polygon,
)
from test_containers import HEADS, STACK, Stand, ome_zarr
from zarrs import write_array

import nucleus_course as nc
from nucleus_course.data import load_dataset
from nucleus_course.data.annotations import FORMATS

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (20, 24)).astype(np.uint8)
DEEP = RNG.integers(0, 4000, (20, 24)).astype(np.uint16)
COLOUR = cv2.GaussianBlur(RNG.integers(0, 256, (20, 24, 3)).astype(np.uint8), (0, 0), 3)


def rows(heading):
    """The first cells of the table below a heading."""
    text = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]


def pillow(place, image, ending, **options):
    image.save(place.with_suffix(ending), **options)
    return place.with_suffix(ending)


def tiff(place, data, **options):
    tifffile.imwrite(place.with_suffix(".tif"), data, **options)
    return place.with_suffix(".tif")


def exif_turned(place):
    exif = Image.Exif()
    exif[274] = 6
    return pillow(place, Image.fromarray(COLOUR), ".jpg", quality=100, subsampling=0, exif=exif)


def compressed(place):
    place.mkdir()
    for name in ("lzw", "zlib", "zstd", "packbits", "lzma"):
        yield tiff(place / name, DEEP, compression=name), {}, DEEP


def whole_numbers(place):
    place.mkdir()
    for kind in ("i1", "i2", "i4", "i8", "u4", "u8"):
        data = (DEEP % 100).astype(kind) - (50 if kind[0] == "i" else 0)
        yield tiff(place / kind, data), {}, data


def floats(place):
    place.mkdir()
    for kind in ("f2", "f4", "f8"):
        data = (DEEP / 1000).astype(kind)
        data[0, 0] = np.nan
        yield tiff(place / kind, data), {}, data
        assert nc.to_rgb8(nc.read_image(place / f"{kind}.tif")).dtype == np.uint8


def eight_and_sixteen(place):
    place.mkdir()
    for number, options in enumerate(
        ({}, {"tile": (16, 16)}, {"rowsperstrip": 1}, {"byteorder": ">"}, {"bigtiff": True})
    ):
        yield tiff(place / str(number), DEEP, **options), {}, DEEP
    yield tiff(place / "rgb", COLOUR, photometric="rgb"), {}, COLOUR
    yield tiff(place / "one", DEEP[:1, :1]), {}, DEEP[:1, :1]


def pyramid(place):
    with tifffile.TiffWriter(place.with_suffix(".ome.tif")) as file:
        file.write(DEEP, subifds=1, photometric="minisblack")
        file.write(DEEP[::2, ::2], subfiletype=1, photometric="minisblack")
    return place.with_suffix(".ome.tif")


def numpy_file(place):
    np.save(place.with_suffix(".npy"), DEEP)
    return place.with_suffix(".npy")


def zarr_array(place):
    write_array(place, STACK[0], ["z", "y", "x"])
    return place


def vendor(kind):
    def write(place):
        place = place.with_suffix(f".{kind}")
        place.write_bytes(HEADS[kind] + bytes(60))
        return place

    return write, {"series": 0, "channel": "Hoechst", "plane": 1}, STACK[1, 1]


def one(write, options, wanted):
    return lambda place: [(write(place), options, wanted)]


PALETTE = Image.fromarray(COLOUR).quantize(16)
LOOKED_UP = np.array(PALETTE.convert("RGB"))
INK = Image.fromarray(COLOUR).convert("CMYK")
INKED = np.array(INK.convert("RGB"))
TWO = np.stack([DEEP[::-1], DEEP])
NAMED = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
# row -> place -> (path, options, the values that are right), one or several
IMAGES = {
    "PNG": one(lambda p: (p.with_suffix(".png").write_bytes(png(DEEP)), p.with_suffix(".png"))[1], {}, DEEP),
    "PNG, palette": one(lambda p: pillow(p, PALETTE, ".png"), {}, LOOKED_UP),
    "PNG, bilevel": one(lambda p: pillow(p, Image.fromarray(GREY > 99), ".png"), {}, 255 * (GREY > 99)),
    "PNG, grey and alpha": one(lambda p: pillow(p, Image.fromarray(np.dstack([GREY, 255 * (GREY > 99).astype(np.uint8)]), "LA"), ".png"), {}, GREY),
    "JPEG": one(exif_turned, {}, np.rot90(COLOUR, -1)),
    "JPEG, CMYK": one(lambda p: pillow(p, INK, ".jpg", quality=100), {}, INKED),
    "BMP": one(lambda p: pillow(p, Image.fromarray(COLOUR), ".bmp"), {}, COLOUR),
    "TIFF, 8 and 16 bits": eight_and_sixteen,
    "TIFF, 32 and 64 bits": whole_numbers,
    "TIFF, float": floats,
    "TIFF, compressed": compressed,
    "TIFF, palette": one(lambda p: pillow(p, PALETTE, ".tif"), {}, LOOKED_UP),
    "TIFF, CMYK": one(lambda p: pillow(p, INK, ".tif"), {}, INKED),
    "TIFF, pages": one(lambda p: tiff(p, TWO, photometric="minisblack"), {"channel": 1}, DEEP),
    "OME-TIFF": one(lambda p: tiff(p, TWO, ome=True, metadata=NAMED, photometric="minisblack"), {}, DEEP),
    "OME-TIFF, pyramid": one(pyramid, {"level": 1}, DEEP[::2, ::2]),
    "ImageJ TIFF": one(lambda p: tiff(p, TWO, imagej=True, metadata={"axes": "CYX", "Labels": ["GFP", "DAPI"]}), {}, DEEP),
    "NumPy": one(numpy_file, {}, DEEP),
    "OME-Zarr": one(lambda p: ome_zarr(p, TWO, "cyx", "0.5", ["GFP", "DAPI"]), {}, DEEP),
    "zarr": one(zarr_array, {"plane": 2}, STACK[0, 2]),
    "CZI": one(*vendor("czi")),
    "LIF": one(*vendor("lif")),
    "ND2": one(*vendor("nd2")),
}  # fmt: skip


@pytest.mark.parametrize("row", rows("Images"))
def test_every_row_of_images(row, tmp_path, monkeypatch):
    bioio = ModuleType("bioio")
    bioio.BioImage = Stand
    monkeypatch.setitem(sys.modules, "bioio", bioio)
    near = 12 if row.startswith("JPEG") else 1 if "CMYK" in row else 0
    for path, options, wanted in IMAGES[row](tmp_path / "a"):
        read = nc.read_image(path, **options)
        assert read.shape == wanted.shape
        if row == "PNG, bilevel":
            read = 255 * (read > 0)
        if near:
            assert np.abs(read.astype(int) - wanted.astype(int)).max() <= near
        else:
            assert row == "PNG, bilevel" or read.dtype == wanted.dtype, path
            assert np.array_equal(read, wanted, equal_nan=wanted.dtype.kind == "f"), path


ANNOTATED = {
    "labels": lambda p: {"a_cp_masks.png": png(pixels(*RINGS).astype(np.uint16))},
    "imagej": lambda p: {"RoiSet.zip": rois(p / "r.zip", *map(roi, RINGS, "12"))},
    "qupath": lambda p: {"a.geojson": {"type": "FeatureCollection", "features": [feature(r) for r in RINGS]}},
    "coco": lambda p: {"c.json": coco(*[[f] for f in FLAT])},
    "labelme": lambda p: {"a.json": labelme(*[("polygon", r, {}) for r in RINGS])},
    "via": lambda p: {"v.json": via(*map(via_polygon, RINGS))},
}  # fmt: skip


@pytest.mark.parametrize("row", rows("Annotations"))
def test_every_row_of_annotations(row, tmp_path, capsys):
    if row == "masks":
        dataset = load_dataset(write_folder(tmp_path / "data", tiny_files()))
        assert set(dataset.counts.values()) == {2} and not capsys.readouterr().err.strip()
        return
    dataset = load_dataset(folder(tmp_path / "data", ANNOTATED[row](tmp_path)))
    assert FORMATS[row] in capsys.readouterr().err
    labels = dataset["a"].labels
    same = labels == pixels(*RINGS)
    assert labels.max() == 2 and np.count_nonzero(~same) <= (20 if row == "coco" else 0)


def test_the_tables_hold_all_that_is_read():
    assert rows("Images") == list(IMAGES) and rows("Annotations") == list(FORMATS)
