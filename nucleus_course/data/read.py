"""Reading one image: its raw values, and an 8-bit version for display."""

import sys
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.containers import VENDORS, decode_vendor, decode_zarr, is_zarr
from nucleus_course.data.files import (
    Pixels,
    decode_npy,
    decode_pillow,
    decode_png,
    kind_of,
    unreadable,
)
from nucleus_course.data.planes import choose_planes, project

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.95
LEAST_RANGE = 8  # least range of an integer image, in steps
SAMPLED = 4_000_000  # values; larger images are sampled in bands of rows
BAND = 1_000_000  # values that are scaled at once


def read_image(path, channel=None, plane=None, time=None, series=None, level=None):
    """Read an image as it is stored.

    PNG, TIFF (OME, ImageJ, pyramids, planes), JPEG, BMP, NumPy ``.npy``, zarr and OME-Zarr folders and,
    with bioio and its plugins, CZI, LIF and ND2. Kinds are recognised by content; the orientation of EXIF or TIFF
    is applied, and alpha left out.

    Args:
        path: a file, or the bytes of one.
        channel: its number from 0, or its name ("DAPI"). By default a channel named after a nuclear stain
            is read, and a line on standard error says so.
        plane: a focal plane's number, "max" (largest values) or "focus" (sharpest plane).
        time, series, level: numbers; the level of a pyramid, 0 the largest.

    Returns:
        (H, W), or (H, W, 3) if the file is RGB; the file's own dtype and values.

    Raises:
        UserError: no such file, damaged, not an image, too large, or a choice is needed: the message
            lists the options.

    >>> import numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "two.npy")
    >>> np.save(path, np.arange(2 * 4 * 5).reshape(2, 4, 5))
    >>> nc.read_image(path, channel=1)[0]
    array([20, 21, 22, 23, 24])
    """
    wanted = dict(channel=channel, plane=plane, time=time, series=series, level=level)
    pixels = read_pixels(path, **wanted)
    for line in pixels.notes:
        print(line, file=sys.stderr)
    return pixels.values


def read_pixels(source, name=None, mask=False, **wanted):
    """:class:`~nucleus_course.data.files.Pixels` of a path, of the bytes of a file, or of a decoded array.

    ``name`` is used in errors about bytes. With ``mask`` the stored values are kept: palettes are not
    applied, and zero stays zero even if it means white. The choices are those of :func:`read_image`.
    """
    if isinstance(source, np.ndarray):
        return Pixels(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), name or "these bytes"
        head = data[:16]
    else:
        name, data = name or str(source), None
        source = Path(source)
        if source.is_dir() and is_zarr(source):
            return decode_zarr(source, _all(wanted))
        head = _read_file(source, name, 16)
    kind = kind_of(head)
    if kind == "tiff":
        from nucleus_course.data.tiff import decode_tiff

        return _plain(decode_tiff(source if data is None else data, name, wanted, mask), name)
    if kind in VENDORS:
        return decode_vendor(source, kind, _all(wanted))
    if not kind:
        raise unreadable(name, head)
    data = _read_file(source, name) if data is None else data
    if kind == "npy":
        return _from_array(decode_npy(data, name), name, wanted)
    for option, value in wanted.items():
        if value not in (None, 0, "0", "max", "focus"):
            raise UserError(f"{name}: {option} {value!r}: this file has only one {option}")
    decode = decode_png if kind == "png" else decode_pillow
    return _plain(decode(data, name, mask), name)


def _all(wanted):
    return dict.fromkeys(("channel", "plane", "time", "series", "level")) | wanted


def _read_file(path, name, size=-1):
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: a folder; give an image file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be read ({reason})") from None


def _from_array(array, name, wanted):
    """A plane of a NumPy array: (H, W), (H, W, 3), or with one unnamed axis to choose along."""
    shape = array.shape
    if array.ndim < 2:
        raise UserError(f"{name}: shape {shape} is not that of an image")
    colour = array.ndim == 3 and shape[2] == 3 and shape[0] > 3
    last = array.ndim == 3 and shape[2] < min(shape[:2])  # channels last
    axes = "YXS" if colour else "YXQ" if last else "ABDEFGHIJ"[: array.ndim - 2] + "YX"
    index, notes = choose_planes(name, axes, shape, [], wanted)
    if last and shape[2] > 4:
        text = f"{name}: shape {shape} is read as {shape[2]} pages of {shape[0]} x {shape[1]}"
        notes.append(f"{text}; if the first axis counts the pages, save it as OME-TIFF")
    array = array[tuple(index.get(axis, slice(None)) for axis in axes)]
    if array.ndim == 3 and not colour:
        array = project(np.moveaxis(array, 2, 0) if last else array, str(wanted["plane"]))
    return _plain(Pixels(np.ascontiguousarray(array), notes=notes), name)


def _plain(pixels, name):
    """The pixels, unless alpha is a picture of its own, which is refused."""
    alpha = pixels.alpha
    if alpha is not None and alpha.size:
        top = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "ui" else 1
        partly = np.count_nonzero((alpha > 0) & (alpha < top))
        if partly * 2 > alpha.size and len(np.unique(alpha[::4, ::4])) > 16:
            raise UserError(
                f"{name}: four channels, and the fourth is a picture rather than transparency: "
                "save the channel to look at as a file of its own"
            )
    return pixels


def to_rgb8(array):
    """Convert an image to uint8 RGB (H, W, 3), for display and drawing.

    Accepts (H, W), (H, W, 1), grey with alpha (H, W, 2), RGB, RGBA and channels-first (1|3|4, H, W).
    Alpha is dropped. uint8 is kept, bool becomes 0 and 255, and 8-bit values stored as 16 bits
    (multiples of 257 up to 65,535) are converted exactly. Everything else is scaled from its 0.5th
    to its 99.95th percentile after a 3 x 3 median, with one range for all channels, so that hot pixels,
    an offset or a factor do not matter. NaN and infinite values count as the lowest.

    Raises :class:`UserError` for other shapes, an image without pixels, and values that are not numbers.
    """
    array = _to_uint8(plain_channels(array))
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array)


def plain_channels(array):
    """An image's values, unchanged, as (H, W) or (H, W, 3); accepts and raises as :func:`to_rgb8`."""
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] > 4 and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] in (1, 2):
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise UserError(
            f"an image has 1 to 4 channels as (H, W) or (H, W, C); this one has shape {array.shape}"
        )
    if array.size == 0:
        raise UserError(f"an image without pixels, shape {array.shape}")
    return array


def to_uint16(array):
    """The values of an image of more than 8 bits, for storage: uint16 (H, W) or (H, W, 3); None if 8 bits suffice.

    uint16 is kept. Other integers and floats are scaled linearly so that the range of :func:`to_rgb8` becomes the
    middle third of 0 to 65,535; values beyond are clipped.
    """
    array = plain_channels(array)
    if _in_8_bits(array) is not None:
        return None
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return np.ascontiguousarray(array, np.uint16)
    low, high = value_range(_sample(array))
    return _scaled(array, 2.0 * low - high, 2.0 * high - low, np.uint16)


def _to_uint8(array):
    exact = _in_8_bits(array)
    return _scaled(array, *value_range(_sample(array)), np.uint8) if exact is None else exact


def _in_8_bits(array):
    """The array as uint8 if that loses nothing; else None."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise UserError(f"the image must hold numbers, not {array.dtype}")
    if array.dtype.kind != "f" and not (_sample(array) % 257).any():
        if array.min() >= 0 and 255 < array.max() <= 65535 and not (array % 257).any():
            return (array // 257).astype(np.uint8)
    return None


def _scaled(array, low, high, dtype):
    """Map ``low`` to 0 and ``high`` to the largest value of an integer type; NaN and infinite values count as ``low``."""
    most = float(np.iinfo(dtype).max)
    pixels = np.empty(array.shape, dtype)
    rows = max(1, BAND // (array.size // len(array)))
    for top in range(0, len(array), rows):  # in bands, to save memory
        band = array[top : top + rows].astype(np.float64) - low
        band = np.nan_to_num(band, copy=False, nan=0, posinf=0, neginf=0)
        pixels[top : top + rows] = np.rint(np.clip(band * (most / (high - low)), 0.0, most))
    return pixels


def _sample(array):
    """The array, or evenly spread bands of its rows if it is large."""
    bands = -(-array.size // SAMPLED)
    if bands == 1:
        return array
    if len(array) < 16:  # low and wide: bands of columns
        return np.swapaxes(_sample(np.swapaxes(array, 0, 1)), 0, 1)
    starts = np.linspace(0, len(array) - 16, max(1, len(array) // (16 * bands))).astype(int)
    return array[np.unique(starts[:, None] + np.arange(16))]


def value_range(values):
    """The values of an image (H, W[, 3]) that become black and white: (low, high), low < high."""
    import cv2

    whole = values.dtype.kind != "f"
    values = values.astype(np.float64)
    sound = np.isfinite(values)
    if not sound.all():
        if not sound.any():
            raise UserError("the image holds NaN or infinite values only")
        values = np.where(sound, values, values[sound].min())
    middle = np.median(values)  # subtracted, because float32 is coarse far from zero
    smooth = cv2.medianBlur(np.clip(values - middle, -3e38, 3e38).astype(np.float32), 3)
    low, high = np.percentile(smooth, (LOW_PERCENTILE, HIGH_PERCENTILE)).astype(np.float64) + middle
    least = LEAST_RANGE if whole else max(1e-6 * max(abs(low), abs(high)), 1e-30)
    return low, max(high, low + least)


def is_grey(image):
    """Whether the three channels of an RGB image (H, W, 3) are equal everywhere."""
    first = image[..., 0]
    return bool(np.array_equal(first, image[..., 1]) and np.array_equal(first, image[..., 2]))
