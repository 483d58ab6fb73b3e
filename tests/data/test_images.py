"""Reading image files and bringing anything to 8-bit RGB."""

import cv2
import numpy as np
import pytest
import tifffile
from bbbc_files import png
from PIL import Image
from png_writer import png_bytes

from nucleus_course._util.errors import UserError
from nucleus_course.data.read import is_grey, read_image, read_pixels, to_rgb8

RNG = np.random.default_rng(1)


def shown(dtype, shape=(5, 7)):
    """RGBA with transparency as in drawings: all or nothing."""
    image = RNG.integers(0, np.iinfo(dtype).max + 1, (*shape, 4)).astype(dtype)
    image[..., 3] = np.where(RNG.random(shape) < 0.5, 0, np.iinfo(dtype).max)
    return image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip(channels, dtype, tmp_path):
    image = shown(dtype)[..., :channels]
    image = image[..., 0] if channels == 1 else image
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(read_image(source), image[..., :3] if channels > 1 else image)
    if channels == 4:
        assert np.array_equal(read_pixels(path).alpha, image[..., 3])


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
    ],
    ids=["unassociated", "compressed", "associated"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_transparent_tiff_keeps_its_colours(options, dtype, tmp_path):
    image = shown(dtype)
    image[0, 0] = 200, 100, 50, 0
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", **options)
    for mask in (False, True):
        pixels = read_pixels(tmp_path / "image.tif", mask=mask)
        assert np.array_equal(pixels.values, image[..., :3])
        assert np.array_equal(pixels.alpha, image[..., 3])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_transparent_tiff_of_other_programs(orientation, tmp_path):
    """LZW, one plane per channel, or rotated: where nothing is transparent, as OpenCV reads it."""
    image = shown(np.uint8)
    turn = {1: 0, 3: 2, 6: -1}[orientation]  # quarter turns, counterclockwise
    Image.fromarray(image).save(
        tmp_path / "lzw.tif", compression="tiff_lzw", tiffinfo={274: orientation}
    )
    planes = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"],
                     extratags=[(274, "H", 1, orientation, True)])  # fmt: skip
    opaque = np.dstack([image[..., :3], np.full((5, 7), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.tif", tiffinfo={274: orientation})
    assert np.array_equal(read_image(tmp_path / "opaque.tif"), np.rot90(image, turn)[..., :3])
    for name in ("lzw.tif", "planes.tif"):
        assert np.array_equal(read_image(tmp_path / name), np.rot90(image, turn)[..., :3]), name


def test_jpeg_is_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    data = cv2.imencode(".jpg", red[..., ::-1])[1].tobytes()
    assert read_image(data)[..., 0].min() > 150 and read_image(data)[..., 2].max() < 50


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_own_png_writer_against_opencv(channels):
    image = shown(np.uint8, (9, 13))
    image = image[..., 0] if channels is None else image[..., :channels]
    image[3:6] = image[3]
    for adaptive in (True, False):
        pixels = read_pixels(png_bytes(image, adaptive))
        assert np.array_equal(pixels.values, image[..., :3] if channels else image)
        assert channels != 4 or np.array_equal(pixels.alpha, image[..., 3])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: b"", "empty"),
        (lambda data: data[:-30], "cut short"),
        (lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:], "checksum"),
        (lambda data: b"these are words", "not a readable image"),
        (lambda data: data[:8], "no header"),
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
    ],
)
def test_to_rgb8(array, expected):
    result = to_rgb8(array)
    assert result.dtype == np.uint8 and result.flags.c_contiguous and result.shape[2] == 3
    assert np.array_equal(result, expected)


def field(shape=(96, 96)):
    """Bright discs on noise: 16-bit values from about 60 to 900."""
    rng = np.random.default_rng(3)
    image = np.full(shape, 110.0, np.float32)
    for _ in range(9):
        centre = tuple(int(value) for value in rng.integers(10, 86, 2))
        cv2.circle(image, centre, 8, float(rng.integers(350, 900)), -1)
    return np.rint(cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, 8, shape)).astype(np.int64)


PLAIN = field()


def with_hot_pixels(image, value):
    image = image.copy()
    image[[3, 20, 41, 60, 90], [5, 70, 12, 44, 9]] = value
    return image


@pytest.mark.parametrize(
    ("image", "tolerance"),
    [
        (with_hot_pixels(PLAIN, 65535).astype(np.uint16), 1),
        (with_hot_pixels(PLAIN, 0).astype(np.uint16), 1),
        ((PLAIN + 32768).astype(np.uint16), 0),
        ((PLAIN - 500).astype(np.int16), 0),
        ((PLAIN * 40).astype(np.uint16), 0),
        ((PLAIN + 2**30).astype(np.int32), 0),
        ((PLAIN + 2**31).astype(np.uint32), 0),
        ((PLAIN + 2**40).astype(np.int64), 0),
        (PLAIN.astype(np.float64) + 1e6, 0),
        ((PLAIN / PLAIN.mean()).astype(np.float32), 1),
        ((PLAIN / 900.0).astype(np.float32), 1),
        ((PLAIN / 255.0).astype(np.float32), 1),
        ((PLAIN / 900.0).astype(np.float16), 2),
        (PLAIN.astype(">u2"), 0),
    ],
)
def test_the_same_field_looks_the_same_whatever_its_units(image, tolerance):
    """Hot pixels, offsets, factors, signs and types: the range is not guessed from the maximum."""
    usual = to_rgb8(PLAIN.astype(np.uint16)).astype(int)
    other = to_rgb8(image).astype(int)
    differs = np.abs(usual - other).max(axis=2) > tolerance
    assert differs.sum() <= 5  # the hot pixels themselves
    assert np.percentile(usual, 99) > 180 and np.percentile(usual, 20) < 20


def test_not_a_number_counts_as_the_lowest():
    image = PLAIN.astype(np.float32)
    image[:2, :2], image[0, 5] = np.nan, np.inf
    assert (to_rgb8(image)[:2, :2] == 0).all() and to_rgb8(image)[0, 5, 0] == 0
    assert np.abs(to_rgb8(image)[8:].astype(int) - to_rgb8(PLAIN)[8:]).max() <= 1


def test_colours_share_one_range():
    rgb = np.stack([PLAIN, PLAIN // 2, PLAIN // 4], axis=2).astype(np.uint16)
    shown = to_rgb8(rgb).astype(int)
    assert (shown[..., 0] >= shown[..., 1]).all() and (shown[..., 1] >= shown[..., 2]).all()


def test_twelve_bit_camera_is_not_black():
    image = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    assert to_rgb8(image).max() == 255 and to_rgb8(image).min() == 0


def test_negative_values_are_stretched():
    shown = to_rgb8(np.linspace(-1.0, 1.0, 256).reshape(16, 16))[..., 0].ravel().astype(int)
    assert shown[0] == 0 and shown[-1] == 255 and (np.diff(shown) >= 0).all()


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
    """The first page may be the channel without nuclei, so using it must not go unmentioned."""
    page = np.random.default_rng(0).integers(0, 255, (24, 32)).astype("uint8")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([page, page]), photometric="minisblack")
    with pytest.raises(UserError, match=r"stack.tif: it holds 2 pages .* choose channel, plane"):
        read_image(tmp_path / "stack.tif")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(page, photometric="minisblack")
        file.write(page[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "preview.tif"), page)
