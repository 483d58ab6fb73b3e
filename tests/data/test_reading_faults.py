"""Files that were once read wrong without a line: each is read right now, or refused by name."""

import os
import shutil
import struct
import sys
import zlib
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from test_containers import HEADS, Stand
from zarrs import add_array, make_group

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.data import slides
from nucleus_course.data.canonical import canonical, canonical_piece
from nucleus_course.data.read import read_pixels, to_rgb8, to_uint16
from nucleus_course.prediction.image_files import find_images, fingerprint, read_picture

RNG = np.random.default_rng(3)
DEEP = RNG.integers(0, 4000, (64, 64)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (40, 50)).astype(np.uint8)
WORDS = RNG.integers(0, 65536, (40, 50, 3)).astype(np.uint16)
ODD = b"n\xfcclei.png"  # not UTF-8


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(shape, depth, lines):
    """A grey PNG of ``depth`` bits; ``lines`` are the bytes of its rows."""
    head = struct.pack(">IIBBBBB", shape[1], shape[0], depth, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def with_exif(data, orientation):
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes(
        [0, orientation, 0, 0, 0, 0, 0, 0]
    )
    return data[:33] + chunk(b"eXIf", exif) + data[33:]


def tiff(path, data, **options):
    tifffile.imwrite(path, data, **options)
    return path


# -------------------------------------------------------------------- PNG


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_does_not_cost_a_png_its_depth(orientation):
    turn = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    for image in (WORDS, WORDS[..., 0], BYTES):
        stored = image if image.ndim == 2 else image[..., ::-1]
        data = cv2.imencode(".png", stored)[1].tobytes()
        read = nc.read_image(with_exif(data, orientation))
        assert read.dtype == image.dtype and np.array_equal(read, np.rot90(image, turn))


def test_the_letters_of_exif_among_the_pixels_are_none():
    data = cv2.imencode(".png", WORDS[..., ::-1])[1].tobytes()
    for body in (b"eXIf", b"II*\0 not EXIF"):
        kind = b"tEXt" if body == b"eXIf" else b"eXIf"
        assert np.array_equal(nc.read_image(data[:33] + chunk(kind, body) + data[33:]), WORDS)


def test_label_images_of_few_bits_keep_their_numbers():
    for depth, lines in ((4, [b"\x01\x23", b"\x45\x6f"]), (2, [b"\x1b", b"\xe4"]), (1, [b"\x50", b"\xa0"])):  # fmt: skip
        data = png((2, 4), depth, lines)
        bits = np.unpackbits(np.frombuffer(b"".join(lines), np.uint8)).reshape(2, -1)[
            :, : 4 * depth
        ]
        numbers = bits.reshape(2, 4, depth) @ (1 << np.arange(depth)[::-1])
        assert np.array_equal(read_pixels(data, mask=True).values, numbers), depth
        shown = nc.read_image(data)
        assert shown.dtype == np.uint8
        assert np.array_equal(shown, numbers * (255 // (2**depth - 1))), "pictures use all 8 bits"


# -------------------------------------------------------------------- TIFF


def test_a_fourth_channel_that_is_not_marked_as_alpha_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGE", 1000)
    image = np.zeros((64, 64, 4), np.uint16)
    image[..., :3] = RNG.integers(100, 400, (64, 64, 3))
    image[20:40, 20:40, 3] = RNG.integers(1000, 4000, (20, 20))
    tiff(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unspecified"])
    untagged = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
    cv2.imwrite(str(tmp_path / "b.tif"), untagged)  # OpenCV does not say what the fourth is
    for path in (tmp_path / "a.tif", tmp_path / "b.tif"):
        for read in (nc.read_image, slides.open_plane):
            with pytest.raises(UserError, match=f"{path.name}: RGB and a fourth .*channel 0 to 3"):
                read(path)
        assert np.array_equal(nc.read_image(path, channel=3), image[..., 3])
        with pytest.raises(UserError, match="channel 4: choose 0 to 3"):
            nc.read_image(path, channel=4)
    plane = slides.open_plane(tmp_path / "a.tif", channel=3)
    assert np.array_equal(plane.read(10, 10, 50, 50), image[10:50, 10:50, 3])
    plane.close()


def test_a_fourth_channel_that_says_nothing_is_left_out(tmp_path):
    image = np.dstack([WORDS, np.full(WORDS.shape[:2], 65535, np.uint16)])
    path = tiff(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(nc.read_image(path), WORDS)


def test_white_zeros_and_colour_maps_of_8_bits(tmp_path):
    for grey in (BYTES, WORDS[..., 0]):
        path = tiff(tmp_path / "white.tif", grey, photometric="miniswhite")
        assert np.array_equal(nc.read_image(path), np.iinfo(grey.dtype).max - grey)
        assert np.array_equal(read_pixels(path, mask=True).values, grey)
    for factor in (1, 257):
        table = (np.stack([np.arange(256)] * 3) * factor).astype(np.uint16)
        path = tiff(tmp_path / "map.tif", BYTES, photometric="palette", colormap=table)
        assert np.array_equal(nc.read_image(path), np.dstack([BYTES] * 3))


def ome_set(folder, *images):
    """Files of one OME-TIFF set: images are (file name, channels, pixel size, pixels)."""
    described = "".join(
        f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT" Type="uint16" SizeX="64" SizeY="64"'
        f' SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="{size}">'
        + "".join(f'<Channel ID="Channel:{i}:{c}" Name="{n}" SamplesPerPixel="1"/>' for c, n in enumerate(names))
        + "".join(f'<TiffData FirstC="{c}" IFD="{c}"><UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData>' for c in (0, 1))
        + "</Pixels></Image>"
        for i, (name, names, size, _) in enumerate(images)
    )  # fmt: skip
    for i, (name, _, _, data) in enumerate(images):
        xml = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">{described}</OME>'
        tifffile.imwrite(folder / name, data, photometric="minisblack", description=xml.encode(), metadata=None)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*reading array from closed file")
def test_one_file_of_an_ome_set_has_its_own_metadata(tmp_path):
    first, second = np.stack([DEEP, DEEP // 2]), np.stack([DEEP // 3, DEEP // 4])
    ome_set(tmp_path, ("m1.ome.tif", ("GFP", "DAPI"), 1.0, first), ("m2.ome.tif", ("DAPI", "GFP"), 0.25, second))  # fmt: skip
    both = read_pixels(tmp_path / "m2.ome.tif", series=1)
    assert (both.channel, both.pixel_size) == ("DAPI", 0.25)
    assert np.array_equal(both.values, second[0])
    (tmp_path / "m1.ome.tif").unlink()
    for source in (tmp_path / "m2.ome.tif", (tmp_path / "m2.ome.tif").read_bytes()):
        alone = read_pixels(source)
        assert (alone.channel, alone.pixel_size) == ("DAPI", 0.25)
        assert np.array_equal(alone.values, second[0])


# -------------------------------------------------------------------- the size of a pixel


def ome(path, x, y, unit="µm", levels=1):
    about = {"axes": "YX", "PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": unit}  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(DEEP, subifds=levels - 1, tile=(16, 16), metadata=about)
        for level in range(1, levels):
            file.write(DEEP[:: 2**level, :: 2**level], subfiletype=1, tile=(16, 16))
    return path


def imagej(path, x, y, unit="um"):
    return tiff(path, DEEP, imagej=True, resolution=(1 / x, 1 / y), metadata={"unit": unit})


def ome_zarr(path, x, y, unit="micrometer", above=None):
    shutil.rmtree(path, ignore_errors=True)
    group = make_group(path)
    add_array(group, "0", DEEP, (32, 32))
    axes = [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    steps = [{"type": "scale", "scale": [y, x]}, {"type": "translation", "translation": [9, 9]}]
    scales = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    if above:
        scales["coordinateTransformations"] = [{"type": "scale", "scale": above}]
    group.attrs["multiscales"] = [scales]
    return path


WRITERS = {"a.ome.tif": ome, "a.tif": imagej, "a.zarr": ome_zarr}


def test_a_level_of_a_pyramid_has_larger_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGE", 100)
    path = ome(tmp_path / "a.ome.tif", 0.5, 0.5, levels=3)
    for level in range(3):
        assert read_pixels(path, level=level).pixel_size == 0.5 * 2**level
        plane = slides.open_plane(path, level=level)
        assert plane.pixel_size == 0.5 * 2**level
        plane.close()


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_that_are_not_square_have_no_size_and_a_line_says_so(name, tmp_path, monkeypatch):
    path = WRITERS[name](tmp_path / name, 0.5, 1.0)
    read = read_pixels(path)
    (line,) = read.notes
    assert read.pixel_size is None and f"{name}: pixels of 0.5 x 1 micro" in line
    monkeypatch.setattr(slides, "LARGE", 100)
    plane = slides.open_plane(path)
    assert plane.pixel_size is None and plane.notes == [line]
    plane.close()
    nearly = read_pixels(WRITERS[name](tmp_path / name, 0.5, 0.501))
    assert nearly.pixel_size == pytest.approx(0.5) and nearly.notes == []


def test_vendors_pixels_that_are_not_square(tmp_path, monkeypatch):
    class Oblong(Stand):
        physical_pixel_sizes = SimpleNamespace(X=0.5, Y=1.0, Z=None)

    bioio = ModuleType("bioio")
    bioio.BioImage = Oblong
    monkeypatch.setitem(sys.modules, "bioio", bioio)
    (tmp_path / "a.czi").write_bytes(HEADS["czi"] + bytes(60))
    read = read_pixels(tmp_path / "a.czi", series=0, channel=0, plane=0)
    assert read.pixel_size is None and "0.5 x 1 micrometres are not square" in read.notes[0]


UNITS = {"nm": 1e-3, "um": 1, "mm": 1e3, "cm": 1e4, "angstrom": 1e-4, "Å": 1e-4, "nanometers": 1e-3}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_units_are_converted_or_named(name, tmp_path):
    for unit, factor in UNITS.items():
        if unit == "Å" and name == "a.tif":
            continue  # ImageJ's metadata are ASCII
        read = read_pixels(WRITERS[name](tmp_path / name, 0.5, 0.5, unit))
        assert read.pixel_size == pytest.approx(0.5 * factor) and read.notes == [], unit
    read = read_pixels(WRITERS[name](tmp_path / name, 0.5, 0.5, "furlong"))
    (line,) = read.notes
    assert read.pixel_size is None and f"{name}: the pixel size is in 'furlong'" in line
    assert read_pixels(WRITERS[name](tmp_path / name, 2, 2, "pixel")).pixel_size is None


def test_the_scale_of_all_levels_counts_in_ome_zarr(tmp_path):
    assert read_pixels(ome_zarr(tmp_path / "a.zarr", 1, 1, above=[0.25, 0.25])).pixel_size == 0.25
    assert read_pixels(ome_zarr(tmp_path / "a.zarr", 1, 2, above=[0.1, 0.2])).pixel_size == pytest.approx(0.2)  # fmt: skip


# -------------------------------------------------------------------- NumPy files and values


def test_axes_of_numpy_files(tmp_path):
    stack = RNG.integers(0, 9, (100, 64, 32)).astype(np.uint16)
    np.save(tmp_path / "a.npy", stack)
    read = read_pixels(tmp_path / "a.npy", plane=5)
    (line,) = read.notes
    assert np.array_equal(read.values, stack[..., 5]) and "read as 32 pages of 100 x 64" in line
    np.save(tmp_path / "a.npy", stack[:5])
    for option in ("level", "series"):
        with pytest.raises(UserError, match=f"{option} 3: this file has only one {option}"):
            nc.read_image(tmp_path / "a.npy", **{option: 3})
        with pytest.raises(UserError, match="5 pages of unknown meaning"):
            nc.read_image(tmp_path / "a.npy", **{option: 0})
    np.save(tmp_path / "a.npy", stack[:6].reshape(2, 3, 64, 32))
    for options in ({}, {"channel": 1, "plane": 2}):
        with pytest.raises(UserError, match="a.npy: 2 axes of unknown meaning, of 2 and 3 pages"):
            nc.read_image(tmp_path / "a.npy", **options)


def test_either_byte_order_is_16_bits(tmp_path):
    np.save(tmp_path / "a.npy", DEEP.astype(">u2"))
    kept = to_uint16(nc.read_image(tmp_path / "a.npy"))
    assert np.array_equal(kept, DEEP) and kept.dtype == np.uint16


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 9), (2, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
def test_images_of_a_pixel(shape, dtype):
    image = np.full(shape, 700).astype(dtype)
    assert to_rgb8(image).shape == (*shape[:2], 3)
    assert canonical(image).image.shape == shape[:2]
    stored = to_uint16(image)
    assert stored is None or stored.shape == shape


@pytest.mark.parametrize("rows", [1, 8, 15])
def test_low_wide_images(rows):
    wide = np.zeros((rows, 5_000_000 // rows), np.uint16)
    wide[:, ::2] = 4000
    assert set(np.unique(to_rgb8(wide))) == {0, 255}
    assert np.array_equal(to_uint16(wide), wide)


def test_not_a_number_is_the_lowest_for_predict_too(tmp_path, capsys):
    image = cv2.GaussianBlur(RNG.random((64, 64)).astype(np.float32), (0, 0), 2)
    for dtype in ("float16", "float32", "float64"):
        odd = image.astype(dtype)
        odd[:3, :3], odd[40, 40], odd[41, 50] = np.nan, np.inf, -np.inf
        lowest = np.where(np.isfinite(odd), odd, odd[np.isfinite(odd)].min())
        whole = canonical(odd)
        assert np.array_equal(whole.image, canonical(lowest).image)
        assert np.array_equal(canonical_piece(odd[:32], whole)[:31], whole.image[:31])
        blocks = [odd[:32, :32], odd[:32, 32:], np.full((32, 32), np.nan, dtype)]
        assert slides.canonical_of(blocks).image.any()
    path = tiff(tmp_path / "a.tif", odd)
    assert np.array_equal(read_picture(path).values, odd, equal_nan=True)
    assert "a.tif: 11 values NaN or infinite: taken as the lowest" in capsys.readouterr().err
    with pytest.raises(UserError, match="NaN or infinite"):
        canonical(np.full((9, 9), np.nan))
    with np.errstate(all="raise"):
        huge = np.where(image > 0.5, 1e39, image.astype(np.float64))  # more than float32 holds
        assert canonical(huge).image.any()


def test_bilevel_tiff_looks_like_bilevel_png(tmp_path):
    mask = cv2.GaussianBlur(RNG.random((64, 64)), (0, 0), 3) > 0.5
    Image.fromarray(mask).save(tmp_path / "a.png")
    tiff(tmp_path / "a.tif", mask)
    one, other = (canonical(nc.read_image(tmp_path / f"a.{kind}")) for kind in ("png", "tif"))
    assert np.array_equal(one.image, other.image) and other.image.max() == 255


# -------------------------------------------------------------------- names, and files that changed


@pytest.fixture
def odd_name(tmp_path):
    """A folder with a file whose name is not UTF-8, and one whose name is how the other is written."""
    try:
        Image.fromarray(BYTES).save(os.path.join(os.fsencode(tmp_path), ODD).decode("utf-8", "surrogateescape"))  # fmt: skip
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    Image.fromarray(BYTES).save(tmp_path / "n%FCclei.png")
    return tmp_path


def test_names_that_are_not_utf8_are_written_otherwise(odd_name, capsys):
    files = find_images([odd_name])
    said = capsys.readouterr().err
    assert "1 image with a name that is not UTF-8: written as n%FCclei.png" in said
    assert len({file.stem for file in files}) == 2
    for file in files:
        for text in (file.file_name, file.stem, *file.other_stems()):
            assert text.encode("utf-8")
        assert np.array_equal(nc.read_image(file.path), BYTES)


def test_a_zarr_image_whose_pixels_changed_is_another(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", 1, 1)
    before = fingerprint(path)
    assert fingerprint(path) == before
    shutil.copytree(path, tmp_path / "copy.zarr")  # with its times
    assert fingerprint(tmp_path / "copy.zarr") == before
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and not p.name.startswith((".", "zarr")))  # fmt: skip
    time = chunk.stat().st_mtime_ns
    chunk.write_bytes(chunk.read_bytes()[::-1])
    os.utime(chunk, ns=(time + 1000, time + 1000))
    assert fingerprint(path) != before


def test_a_tiff_that_changed_in_its_middle_is_another(tmp_path):
    image = np.zeros((1024, 1024), np.uint8)
    before = fingerprint(tiff(tmp_path / "a.tif", image))
    shutil.copyfile(tmp_path / "a.tif", tmp_path / "copy.tif")  # at another time
    assert fingerprint(tmp_path / "copy.tif") == before
    image[400:460] = 7
    assert fingerprint(tiff(tmp_path / "a.tif", image)) != before
