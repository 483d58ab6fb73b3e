"""Reading image files and bringing anything to 8-bit RGB."""

import cv2
import numpy as np
import pytest
import tifffile
from bbbc_files import png
from PIL import Image

from nucleus_course._util.errors import UserError
from nucleus_course.data.png import png_bytes
from nucleus_course.data.read import is_grey, read_image, to_rgb8

RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((5, 7), np.uint8),
        ((5, 7, 3), np.uint8),
        ((5, 7, 4), np.uint8),
        ((5, 7), np.uint16),
        ((5, 7, 3), np.uint16),
    ],
)
def test_png_round_trip(shape, dtype, tmp_path):
    image = RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(read_image(source), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_round_trip(dtype, tmp_path):
    image = (RNG.random((6, 8)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "image.tif", image)
    assert np.array_equal(read_image(tmp_path / "image.tif"), image)


def test_tiff_that_opencv_does_not_read(tmp_path):
    image = RNG.integers(0, 2**31, (6, 8)).astype(np.uint32)
    tifffile.imwrite(tmp_path / "image.tif", image)
    assert np.array_equal(read_image(tmp_path / "image.tif"), image)


@pytest.mark.parametrize(
    "options",
    [
        {"extrasamples": ["unassalpha"]},
        {"extrasamples": ["unassalpha"], "compression": "zlib", "byteorder": ">"},
        {"extrasamples": ["assocalpha"]},
        {"extrasamples": ["unspecified"]},
    ],
    ids=["unassociated", "compressed", "associated", "unspecified"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_transparent_tiff_keeps_its_colours(options, dtype, tmp_path):
    image = RNG.integers(0, np.iinfo(dtype).max + 1, (5, 7, 4)).astype(dtype)
    image[0, 0] = 200, 100, 50, 0
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", **options)
    assert np.array_equal(read_image(tmp_path / "image.tif"), image)
    assert np.array_equal(read_image(tmp_path / "image.tif", mask=True), image)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_transparent_tiff_of_other_programs(orientation, tmp_path):
    """LZW, or one plane a channel, or turned: as OpenCV has it where nothing is transparent."""
    image = RNG.integers(0, 256, (5, 7, 4)).astype(np.uint8)
    turn = {1: 0, 3: 2, 6: -1}[orientation]  # quarter turns, counterclockwise
    Image.fromarray(image).save(
        tmp_path / "lzw.tif", compression="tiff_lzw", tiffinfo={274: orientation}
    )
    planes = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"],
                     extratags=[(274, "H", 1, orientation, True)])  # fmt: skip
    opaque = np.dstack([image[..., :3], np.full((5, 7), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.tif", tiffinfo={274: orientation})
    assert np.array_equal(read_image(tmp_path / "opaque.tif"), np.rot90(opaque, turn))
    for name in ("lzw.tif", "planes.tif"):
        assert np.array_equal(read_image(tmp_path / name), np.rot90(image, turn)), name


def test_jpeg_is_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    data = cv2.imencode(".jpg", red[..., ::-1])[1].tobytes()
    assert read_image(data)[..., 0].min() > 150 and read_image(data)[..., 2].max() < 50


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_own_png_writer_against_opencv(channels):
    shape = (9, 13) if channels is None else (9, 13, channels)
    image = RNG.integers(0, 256, shape).astype(np.uint8)
    image[3:6] = image[3]
    assert np.array_equal(read_image(png_bytes(image)), image)
    assert np.array_equal(read_image(png_bytes(image, adaptive=False)), image)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: b"", "empty"),
        (lambda data: data[:-30], "cut short"),
        (lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:], "checksum"),
        (lambda data: b"these are words", "not an image"),
        (lambda data: data[:8], "cut short"),
    ],
)
def test_damaged_files_are_named(damage, message, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(damage(png(RNG.integers(0, 256, (40, 40)).astype(np.uint8))))
    with pytest.raises(UserError, match=f"broken.png.*{message}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="a folder"):
        read_image(tmp_path)


GREY = RNG.integers(0, 256, (4, 6)).astype(np.uint8)
RGB = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
STACKED = np.stack([GREY] * 3, axis=2)


@pytest.mark.parametrize(
    "array, expected",
    [
        (GREY, STACKED),
        (GREY[..., None], STACKED),
        (np.dstack([GREY, GREY]), STACKED),
        (RGB, RGB),
        (np.dstack([RGB, GREY]), RGB),
        (np.moveaxis(np.repeat(RGB, 2, axis=1), 2, 0), np.repeat(RGB, 2, axis=1)),
        (GREY > 99, (STACKED > 99) * 255),
        (GREY.astype(np.uint16) * 257, STACKED),
        (RGB.astype(np.int64), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16), None),
        (RGB.astype(np.float32), RGB),
    ],
)
def test_to_rgb8(array, expected):
    result = to_rgb8(array)
    assert result.dtype == np.uint8 and result.flags.c_contiguous and result.shape[2] == 3
    if expected is None:
        assert np.abs(result.astype(int) - RGB).max() <= 1
    else:
        assert np.array_equal(result, expected)


def test_twelve_bit_camera_is_not_black():
    image = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    assert to_rgb8(image).max() == 255 and to_rgb8(image).min() == 0


def test_negative_values_are_stretched():
    assert to_rgb8(np.array([[-1.0, 0.0], [0.5, 1.0]]))[..., 0].tolist() == [[0, 128], [191, 255]]


def test_constant_images():
    assert to_rgb8(np.zeros((3, 3), np.uint16)).max() == 0
    assert to_rgb8(np.full((3, 3), -2.0)).max() == 0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(5),
        np.zeros((2, 5, 5, 3)),
        np.zeros((4, 5, 2, 2)),
        np.zeros((0, 5)),
        np.full((3, 3), np.nan),
        np.array([["a"]]),
    ],
)
def test_what_is_no_image(bad):
    with pytest.raises(UserError):
        to_rgb8(bad)


def test_is_grey():
    assert is_grey(STACKED) and not is_grey(RGB)


def test_a_tiff_of_several_pages_is_refused_and_a_preview_is_none(tmp_path):
    """Page one alone may be the channel without nuclei: to look at it in silence is to count nothing."""
    page = np.random.default_rng(0).integers(0, 255, (24, 32)).astype("uint8")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([page, page]), photometric="minisblack")
    with pytest.raises(UserError, match=r"stack.tif: a TIFF of 2 pages .* save the one to look at"):
        read_image(tmp_path / "stack.tif")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(page, photometric="minisblack")
        file.write(page[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "preview.tif"), page)


@pytest.mark.parametrize(
    ("most", "shown"),
    [(255, 255), (256, 16), (4095, 255), (4356, 68), (16383, 255), (16384, 64), (65535, 255)],
)
def test_the_fewest_bits_that_hold_the_maximum(most, shown):
    image = np.zeros((8, 8), "uint16")
    image[0, 0], image[1, 1] = most, 1  # 1: no widened 8-bit image
    assert to_rgb8(image).max() == shown
