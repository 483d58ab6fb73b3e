"""Files of microscopes and their programs: read with the right values, or refused with a message.

Every file is written here by another library (tifffile, Pillow, OpenCV, NumPy) from arrays that are known.
"""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.data.read import read_pixels, to_rgb8

RNG = np.random.default_rng(7)
NUCLEI = RNG.integers(300, 4000, (40, 52)).astype(np.uint16)
OTHER = RNG.integers(300, 4000, (40, 52)).astype(np.uint16)
THIRD = RNG.integers(300, 4000, (40, 52)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (40, 52)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (40, 52, 3)).astype(np.uint8)


def tiff(path, data, **options):
    tifffile.imwrite(path, data, **options)
    return path


# name: (data, options of tifffile.imwrite) of files with two channels or more, the nuclei last
CHANNELS = {
    "samples": (np.stack([OTHER, NUCLEI], -1), {"planarconfig": "contig"}),
    "planes": (np.stack([OTHER, NUCLEI]), {"planarconfig": "separate"}),
    "four samples": (np.stack([OTHER, THIRD, OTHER, NUCLEI], -1), {"planarconfig": "contig"}),
    "three samples": (np.stack([OTHER, THIRD, NUCLEI], -1), {"planarconfig": "contig"}),
    "pages": (np.stack([OTHER, NUCLEI]), {}),
    "named axes": (np.stack([OTHER, NUCLEI]), {"metadata": {"axes": "CYX"}}),
    "imagej": (np.stack([OTHER, NUCLEI]), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "imagej, one directory": (
        np.stack([OTHER, NUCLEI]),
        {"imagej": True, "metadata": {"axes": "CYX"}, "truncate": True},
    ),
    "ome": (np.stack([OTHER, NUCLEI]), {"ome": True, "metadata": {"axes": "CYX"}}),
    "compressed": (np.stack([OTHER, NUCLEI]), {"compression": "lzw", "predictor": 2}),
    "tiled": (np.stack([OTHER, NUCLEI]), {"tile": (16, 16), "compression": "zstd"}),
    "big-endian BigTIFF": (np.stack([OTHER, NUCLEI]), {"bigtiff": True, "byteorder": ">"}),
}


@pytest.mark.parametrize("form", CHANNELS)
def test_channels_are_no_colours_and_one_is_chosen(form, tmp_path, capsys):
    data, options = CHANNELS[form]
    path = tiff(tmp_path / "a.tif", data, **{"photometric": "minisblack", **options})
    with pytest.raises(UserError, match=r"a\.tif: it holds \d (channels|pages).*choose.*0 to \d"):
        nc.read_image(path)
    last = 3 if form == "four samples" else 2 if form == "three samples" else 1
    for source in (path, path.read_bytes()):
        assert np.array_equal(nc.read_image(source, channel=last), NUCLEI)
        assert np.array_equal(nc.read_image(source, channel=0), OTHER)
    with pytest.raises(UserError, match=f"channel {last + 1}: choose 0 to {last}"):
        nc.read_image(path, channel=last + 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["GFP", "DAPI"], 1),
        (["Hoechst 33342", "Alexa 568"], 0),
        (["TRITC", "DRAQ5"], 1),
        (["membrane", "H2B-mCherry"], 1),
        (["actin", "nuclei"], 1),
        (["H2B-GFP", "DAPI"], 1),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_the_nuclear_stain_is_proposed_by_name_and_said(kind, names, chosen, tmp_path, capsys):
    data = np.stack([OTHER, NUCLEI])
    if kind == "ome":
        options = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": names}}}
    else:
        options = {"imagej": True, "metadata": {"axes": "CYX", "Labels": names}}
    path = tiff(tmp_path / "a.tif", data, photometric="minisblack", **options)
    assert np.array_equal(nc.read_image(path), data[chosen])
    said = capsys.readouterr().err
    assert f"channel {chosen} ({names[chosen]}) of {', '.join(names)}" in said
    assert len(said.splitlines()) == 1
    other = 1 - chosen
    assert np.array_equal(nc.read_image(path, channel=names[other].lower()), data[other])
    with pytest.raises(UserError, match=f"channel 'TOMATO': the channels are {names[0]}"):
        nc.read_image(path, channel="TOMATO")


def test_no_nuclear_stain_among_the_names(tmp_path):
    options = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["red", "green"]}}}
    path = tiff(tmp_path / "a.tif", np.stack([OTHER, NUCLEI]), **options)
    with pytest.raises(UserError, match=r"2 channels \(red, green\): choose channel 0 to 1"):
        nc.read_image(path)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_times_planes_and_channels(kind, tmp_path):
    stack = RNG.integers(0, 4000, (2, 3, 2, 24, 20)).astype(np.uint16)  # T, Z, C
    path = tiff(
        tmp_path / "a.tif",
        stack,
        photometric="minisblack",
        metadata={"axes": "TZCYX"},
        **{kind: True},
    )
    with pytest.raises(UserError, match="2 times and 3 planes and 2 channels"):
        nc.read_image(path)
    with pytest.raises(UserError, match="3 planes: choose plane 0 to 2.*max or focus"):
        nc.read_image(path, time=0, channel=1)
    read = nc.read_image(path, time=1, plane=2, channel=1)
    assert np.array_equal(read, stack[1, 2, 1])
    read = nc.read_image(path, time="0", plane="max", channel="0")
    assert np.array_equal(read, stack[0, :, 0].max(axis=0))
    with pytest.raises(UserError, match="plane sharp: choose 0 to 2, max or focus"):
        nc.read_image(path, time=1, plane="sharp", channel=1)


def test_the_sharpest_plane(tmp_path):
    sharp = cv2.circle(np.zeros((64, 64), np.uint16), (30, 30), 12, 3000, -1)
    planes = [cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (5, 0.5, 3)]
    path = tiff(tmp_path / "a.tif", np.stack(planes), metadata={"axes": "ZYX"})
    assert np.array_equal(nc.read_image(path, plane="focus"), planes[1])


def test_a_thumbnail_first_and_two_pictures(tmp_path, capsys):
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as file:
        file.write(BYTES[::4, ::4], photometric="minisblack")
        file.write(BYTES, photometric="minisblack")
    assert np.array_equal(nc.read_image(tmp_path / "thumb.tif"), BYTES)
    assert "the largest of 2 pictures is read (series 1)" in capsys.readouterr().err
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(NUCLEI, photometric="minisblack")
        file.write(BYTES, photometric="minisblack")
    with pytest.raises(UserError, match=r"2 pictures: choose a series \(0: 40x52.*1: 40x52"):
        nc.read_image(tmp_path / "two.tif")
    assert np.array_equal(nc.read_image(tmp_path / "two.tif", series=1), BYTES)
    with pytest.raises(UserError, match="series 2: choose 0 to 1"):
        nc.read_image(tmp_path / "two.tif", series=2)


def test_a_pyramid(tmp_path):
    large = RNG.integers(0, 4000, (128, 128)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(large, subifds=1, tile=(32, 32), photometric="minisblack")
        file.write(large[::2, ::2], subfiletype=1, tile=(32, 32), photometric="minisblack")
    assert np.array_equal(nc.read_image(tmp_path / "a.ome.tif"), large)
    assert np.array_equal(nc.read_image(tmp_path / "a.ome.tif", level=1), large[::2, ::2])
    with pytest.raises(UserError, match="level 2: choose 0 to 1"):
        nc.read_image(tmp_path / "a.ome.tif", level=2)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8", "f2"])
def test_every_type_and_compression(dtype, compression, tmp_path):
    image = RNG.integers(-90 if dtype[0] != "u" else 0, 99, (17, 23)).astype(dtype)
    path = tiff(tmp_path / "a.tif", image, compression=compression)
    read = nc.read_image(path)
    assert read.dtype == image.dtype and np.array_equal(read, image)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.uint8])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_of_any_depth(planar, dtype, tmp_path):
    image = COLOUR.astype(dtype)
    stored = image if planar == "contig" else np.moveaxis(image, 2, 0).copy()
    path = tiff(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    for _ in range(3):  # the same every time
        read = nc.read_image(path)
        assert read.dtype == dtype and np.array_equal(read, image)


def test_bilevel_palette_and_cmyk(tmp_path):
    black = BYTES > 128
    for name, options in (("fax.tif", {"compression": "group4"}), ("bits.png", {})):
        if name == "fax.tif" and not hasattr(tifffile.COMPRESSION, "CCITTFAX4"):
            continue  # tifffile before 2026 refuses it by name
        Image.fromarray(black).save(tmp_path / name, **options)
        read = to_rgb8(nc.read_image(tmp_path / name))[..., 0] > 0
        assert np.array_equal(read, black), name
    palette = Image.fromarray(COLOUR).quantize(32)
    shown = np.array(palette.convert("RGB"))
    for name in ("palette.png", "palette.tif", "palette.bmp"):
        palette.save(tmp_path / name)
        assert np.array_equal(nc.read_image(tmp_path / name), shown), name
        numbers = read_pixels(tmp_path / name, mask=True).values
        assert np.array_equal(numbers, np.array(palette)), name
    ink = Image.fromarray(COLOUR).convert("CMYK")
    ink.save(tmp_path / "ink.tif")
    wanted = np.array(ink.convert("RGB")).astype(int)
    assert np.abs(nc.read_image(tmp_path / "ink.tif").astype(int) - wanted).max() <= 1
    ink.save(tmp_path / "ink.jpg", quality=98)
    read = nc.read_image(tmp_path / "ink.jpg").astype(int)
    assert np.abs(read - np.array(Image.open(tmp_path / "ink.jpg").convert("RGB"))).max() <= 1


def test_grey_with_alpha_is_grey(tmp_path):
    alpha = np.where(BYTES > 100, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([BYTES, alpha])).save(tmp_path / "a.png")
    assert np.array_equal(nc.read_image(tmp_path / "a.png"), BYTES)
    assert np.array_equal(read_pixels(tmp_path / "a.png").alpha, alpha)


def test_a_fourth_channel_that_is_a_picture_is_not_alpha(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(np.dstack([COLOUR, BYTES])).save(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: four channels"):
            nc.read_image(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_the_viewers_for_images_and_masks(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(BYTES)
    stored.save(tmp_path / "a.png", exif=exif)
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=exif, quality=95)
    stored.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    for name, other in (("a.png", "a.png"), ("a.jpg", "a.jpg"), ("a.tif", "a.png")):
        with Image.open(tmp_path / other) as image:  # Pillow rotates a TIFF when it opens it
            shown = np.array(ImageOps.exif_transpose(image))
        for mask in (False, True):
            assert np.array_equal(read_pixels(tmp_path / name, mask=mask).values, shown), name


@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_files(order, tmp_path):
    for image in (NUCLEI, COLOUR, BYTES > 9, NUCLEI.astype(">f4")):
        np.save(tmp_path / "a.npy", np.asarray(image, order=order))
        assert np.array_equal(nc.read_image(tmp_path / "a.npy"), image)
    np.save(tmp_path / "a.npy", np.stack([OTHER, NUCLEI]))
    with pytest.raises(UserError, match="2 pages of unknown meaning"):
        nc.read_image(tmp_path / "a.npy")
    assert np.array_equal(nc.read_image(tmp_path / "a.npy", channel=1), NUCLEI)
    np.save(tmp_path / "a.npy", np.stack([OTHER, NUCLEI], -1))
    assert np.array_equal(nc.read_image(tmp_path / "a.npy", channel=1), NUCLEI)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    np.save(
        tmp_path / "a.npy", np.array([[Trap(tmp_path / "ran")]], dtype=object), allow_pickle=True
    )
    with pytest.raises(UserError, match="a.npy: holds object"):
        nc.read_image(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["plain", "imagej", "compressed", "jpeg", "png", "npy"])
def test_files_that_are_cut_short(kind, share, tmp_path):
    stack = np.stack([OTHER, NUCLEI, THIRD])
    if kind == "jpeg":
        data = cv2.imencode(".jpg", COLOUR)[1].tobytes()
    elif kind == "png":
        data = cv2.imencode(".png", NUCLEI)[1].tobytes()
    else:
        out = io.BytesIO()
        if kind == "npy":
            np.save(out, NUCLEI)
        elif kind == "imagej":
            tifffile.imwrite(out, stack, imagej=True, metadata={"axes": "CYX"}, truncate=True)
        else:
            tifffile.imwrite(out, NUCLEI, compression="zlib" if kind == "compressed" else None)
        data = out.getvalue()
    (tmp_path / "cut.dat").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="cut.dat: "):
        nc.read_image(tmp_path / "cut.dat", channel=2 if kind == "imagej" else None)


def test_images_are_told_by_content(tmp_path):
    tiff(tmp_path / "a.png", NUCLEI)
    cv2.imwrite(str(tmp_path / "b.png"), BYTES)
    (tmp_path / "b.png").rename(tmp_path / "b.dat")
    assert np.array_equal(nc.read_image(tmp_path / "a.png"), NUCLEI)
    assert np.array_equal(nc.read_image(tmp_path / "b.dat"), BYTES)
    for head, text in (
        (b"ZISRAWFILE", "Zeiss CZI"),
        (b"PK\x03\x04", "zip"),
        (b"\x89HDF\r\n", "HDF5"),
    ):
        (tmp_path / "c.tif").write_bytes(head + bytes(40))
        with pytest.raises(UserError, match=f"c.tif: .*{text}"):
            nc.read_image(tmp_path / "c.tif")


def test_companions_of_an_ome_tiff_are_looked_for_in_its_folder_only(tmp_path):
    outside = tiff(tmp_path / "secret.tif", NUCLEI)
    (tmp_path / "in").mkdir()
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="52" SizeY="40" SizeC="1" SizeZ="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1">'
        '<UUID FileName="../secret.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    path = tiff(tmp_path / "in" / "a.ome.tif", OTHER, description=xml, metadata=None)
    assert outside.exists()
    with pytest.raises(
        UserError, match=r"a.ome.tif: refers to '../secret.tif', outside its folder"
    ):
        nc.read_image(path)


def test_pixel_size(tmp_path):
    path = tiff(tmp_path / "a.ome.tif", NUCLEI, metadata={
        "axes": "YX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 325.0, "PhysicalSizeYUnit": "nm"})  # fmt: skip
    assert read_pixels(path).pixel_size == pytest.approx(0.325)
    path = tiff(tmp_path / "b.tif", NUCLEI, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    assert read_pixels(path).pixel_size == pytest.approx(0.25)
    assert read_pixels(tiff(tmp_path / "c.tif", NUCLEI)).pixel_size is None


BOMBS = {
    "tiff": lambda: _tiff_of(2**31 - 1, 2**31 - 1),
    "tall tiff": lambda: _tiff_of(2**31 - 1, 1),
    "png": lambda: b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", (2**31 - 1).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0") + _chunk(b"IEND", b""),
    "npy": lambda: _npy("(2147483647, 2147483647)"),
    "npy of little": lambda: _npy("(30000, 30000)"),
    "bmp": lambda: b"BM" + bytes(12) + (40).to_bytes(4, "little") + (2**30).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24),
}  # fmt: skip


def _chunk(kind, body):
    import zlib

    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _npy(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def _tiff_of(width, height):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200), (277, 3, 1), (278, 4, height), (279, 4, 20)]  # fmt: skip
    body = b"".join(
        t.to_bytes(2, "little") + k.to_bytes(2, "little") + b"\1\0\0\0" + v.to_bytes(4, "little")
        for t, k, v in tags
    )
    return b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + body + bytes(200)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_bombs_take_no_memory(tmp_path):
    """In a process that may use only 600 MB more: each is refused by one line."""
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    code = (
        "import resource, sys, pathlib, numpy, cv2, tifffile, PIL.Image, imagecodecs, nucleus_course as nc\n"
        "nc.read_image\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 6 * 10**8,) * 2)\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        nc.read_image(path); print('read', path)\n"
        "    except nc.UserError as error:\n        assert path.name in str(error), error; print('refused')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert run.stdout.split() == ["refused"] * len(BOMBS), run.stdout + run.stderr
