"""Image files and arrays: reading what is stored, and bringing anything to 8-bit RGB."""

import zlib
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXTENSIONS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def read_image(source, name=None, mask=False):
    """Decode an image as it is stored: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, any dtype.

    ``source`` is a path or the bytes of a file; ``name`` is what errors call the bytes. Of a TIFF
    with several pages the first is read. One of 8 bits or fewer whose zero is white comes as it looks;
    with ``mask`` as its values are: tifffile and scikit-image store bool arrays so, ImageJ masks with an
    inverting lookup table, and all of them mean the large values (fax compression means the look). Raises :class:`UserError` when the file is missing,
    is no image, or is damaged (PNG checksums are verified: decoders return half an image quietly).
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), name or "these bytes"
    else:
        name = name or str(source)
        data = _read_file(Path(source), name)
    if not data:
        raise UserError(f"{name}: the file is empty; replace it with an image")
    if data.startswith(PNG_SIGNATURE):
        damage = png_damage(data)
        if damage:
            raise UserError(f"{name}: damaged PNG ({damage}); copy or download the file again")
    array = _decode(data, mask)
    if array is None:
        raise UserError(f"{name}: not an image that can be read (PNG, TIFF, JPEG, BMP)")
    if data[:2] in (b"II", b"MM") and (pages := _pages(data)) > 1:
        raise UserError(
            f"{name}: a TIFF of {pages} pages (channels, planes or frames): save the one to look at as a file of its own"
        )
    return array


def _read_file(path, name):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: a folder, where an image file was expected") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error})") from None


def _decode(data, mask=False):
    import cv2

    array = None
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pass
    if array is None:
        return _decode_tiff(data) if data[:2] in (b"II", b"MM") else None
    tiff = data[:2] in (b"II", b"MM")
    if array.ndim == 3 and array.shape[2] >= 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]  # OpenCV keeps blue first
        if tiff and array.shape[2] == 4 and array.dtype == np.uint8:
            array = _straight(data, array)
    elif mask and array.dtype == np.uint8 and tiff and _is_inverted(data):
        array = 255 - array
    return array


def _pages(data):
    """How many pages of a TIFF are images as large as the first: previews do not count."""
    import io

    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            first = file.pages[0].shape[:2]
            return sum(page.shape[:2] == first and not page.is_reduced for page in file.pages)
    except Exception:  # as in _decode_tiff
        return 1


def _straight(data, array):
    """The colours of an 8-bit RGBA TIFF as stored: where its alpha is unassociated, OpenCV darkens them by it."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "RGBA" or image.tag_v2.get(338) not in (2, (2,)):  # ExtraSamples
                return array
            stored = np.array(image)
    except Exception:  # as in _decode_tiff
        return array
    return stored if stored.shape == array.shape else array


def _is_inverted(data):
    """Whether a TIFF is one whose values OpenCV turns over: zero is white, 8 bits at most, and no fax."""
    import io

    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            return (
                page.photometric == 0
                and page.bitspersample <= 8
                and page.compression not in (2, 3, 4)
            )
    except Exception:  # as in _decode_tiff
        return False


def _decode_tiff(data):
    """TIFFs outside OpenCV's range (planar, odd compressions, 32-bit integers)."""
    import io

    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return file.pages[0].asarray()
    except Exception:  # tifffile raises many kinds, and each of them means: not readable here
        return None


def png_damage(data):
    """What is wrong with the bytes of a PNG file, or "" when every chunk's checksum holds."""
    position, end = len(PNG_SIGNATURE), len(data)
    while position + 12 <= end:
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        stop = position + 12 + length
        if stop > end:
            return "it is cut short"
        checksum = int.from_bytes(data[stop - 4 : stop], "big")
        if zlib.crc32(data[position + 4 : stop - 4]) != checksum:
            return "a checksum does not hold"
        if kind == b"IEND":
            return ""
        position = stop
    return "it is cut short"


def to_rgb8(array):
    """Bring an image to uint8 RGB (H, W, 3).

    Accepts (H, W), (H, W, 1), grey with alpha (H, W, 2), RGB, RGBA and channels-first (1|3|4, H, W).
    Alpha is dropped. Values:

    * uint8 stays as it is; bool becomes 0 and 255;
    * wider integers that are an exact widening of 8 bits (multiples of 257) are narrowed exactly;
      otherwise they are scaled by the smallest of 8, 12, 14 and 16 bits that holds the maximum, so
      that a 12-bit camera image in a uint16 file is not nearly black;
    * floats in [0, 1] are scaled by 255; floats up to 255 or 65,535 are taken as 8- or 16-bit
      values; anything else, negative values too, is stretched from minimum to maximum.

    Raises :class:`UserError` for other shapes, for an image without pixels and for NaN or infinity.
    """
    array = plain_channels(array)
    array = _to_uint8(array)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array)


def plain_channels(array):
    """An image's values as they are: (H, W) or (H, W, 3), from the forms that :func:`to_rgb8` accepts, and raising as it does."""
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


def _to_uint8(array):
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise UserError(f"an image of numbers was expected, not {array.dtype}")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not np.isfinite(low) or not np.isfinite(high):
            raise UserError("the image holds NaN or infinite values; replace them first")
        if low >= 0 and high <= 1:
            return np.rint(array * 255.0).astype(np.uint8)
    elif low >= 0 and high <= 65535 and high > 255 and not (array % 257).any():
        return (array // 257).astype(np.uint8)
    if low < 0 or high > 65535:
        span = max(float(high) - float(low), 1e-12)
        return np.rint((array.astype(np.float64) - float(low)) * (255.0 / span)).astype(np.uint8)
    top = next(float(top) for top in (255, 4095, 16383, 65535) if high <= top)
    return np.rint(array.astype(np.float32) * (255.0 / top)).astype(np.uint8)


def is_grey(image):
    """True when the three channels of an RGB image (H, W, 3) are equal everywhere."""
    first = image[..., 0]
    return bool(np.array_equal(first, image[..., 1]) and np.array_equal(first, image[..., 2]))
