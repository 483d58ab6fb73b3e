"""The kinds of image file, recognised by their first bytes, and decoders for all of them but TIFF.

A decoder returns :class:`Pixels`: the values as stored, and the file's metadata.
"""

import io
import zlib
from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.errors import UserError

READABLE = "PNG, TIFF (OME and ImageJ too), JPEG, BMP, NumPy .npy, zarr; CZI, LIF, ND2 with bioio"
MAX_BYTES = 2**31  # decoded; larger images are refused before memory is allocated
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = (
    (PNG_SIGNATURE, "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"\x93NUMPY", "npy"),
    (b"ZISRAWFILE", "czi"),
    (b"\x70\0\0\0", "lif"),
    (b"\xda\xce\xbe\x0a", "nd2"),
)
# Other files: first bytes, and what to say about them.
OTHERS = (
    (b"\x89HDF", "an HDF5 file (Imaris, ilastik): export it as TIFF"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"GIF8", "a GIF: save it as PNG"),
    (b"%PDF", "a PDF: export the picture in it as PNG"),
    (b"RIFF", "a WebP or video file: save it as PNG"),
    (b"Iout", "an ImageJ ROI, not an image"),
    (b"{", "text (JSON), not an image"),
)
# Micrometres of a unit of length, under every name that programs give it. No inches: they come from printers' resolutions.
MICROMETRES = {
    name: size
    for size, names in (
        (1e-4, "angstrom angstroms ångström å"),
        (1e-3, "nm nanometer nanometers nanometre nanometres"),
        (1.0, "um µm μm \\u00b5m micron microns micrometer micrometers micrometre micrometres"),
        (1e3, "mm millimeter millimeters millimetre millimetres"),
        (1e4, "cm centimeter centimeters centimetre centimetres"),
        (1e6, "m meter meters metre metres"),
    )
    for name in names.split()
}
UNCALIBRATED = ("", "none", "null", "pixel", "pixels", "px", "reference frame")
SQUARE = 1.01  # largest ratio of a square pixel's sides
# Of these, the files that hold no picture.
NO_PICTURES = tuple(t for _, t in OTHERS if t.endswith(("not an image", "unpack it first")))


@dataclass
class Pixels:
    """A decoded plane.

    Attributes:
        values: (H, W) or (H, W, 3) as stored; alpha: (H, W) or None.
        lossy: whether compression may have changed values.
        notes: a line for each choice that was made.
        channel, number: name and number of the channel that was read.
        pixel_size: micrometres, or None.
        channels: names of all channels, if there are several.
        others: a function that yields (name, values) of each channel, or None.
    """

    values: np.ndarray
    alpha: np.ndarray = None
    lossy: bool = False
    notes: list = field(default_factory=list)
    channel: str = ""
    pixel_size: float = None
    channels: tuple = ()
    number: int = 0
    others: object = None


def name_channels(names, count):
    """Unique names of a file's channels: their own, or their numbers from 0; () for a single one.

    >>> name_channels(["DAPI", "GFP", "DAPI"], 3), name_channels([], 2), name_channels(["DAPI"], 1)
    (('DAPI', 'GFP', 'DAPI 2'), ('0', '1'), ())
    """
    if count < 2:
        return ()
    names = [str(i) if not name else name for i, name in enumerate(names or [""] * count)]
    return tuple(n if names.index(n) == i else f"{n} {i}" for i, n in enumerate(names))


def pixel_side(name, sides):
    """The side of a square pixel in micrometres or None, and notes on why a size that the file gives is not used.

    ``sides`` are (number, unit) of X and Y; of X alone, or none.

    >>> pixel_side("a.tif", [(325, "nm"), (0.325, "µm")])
    (0.325, [])
    >>> pixel_side("a.tif", [(1, "µm"), (2, "µm")])
    (None, ['a.tif: pixels of 1 x 2 micrometres are not square: sizes are given in pixels only'])
    """
    lengths = []
    for number, unit in sides:
        unit = str(unit or "").strip()
        # "Mm" would be a megametre, 'MM' is not.
        factor = None if unit == "Mm" else MICROMETRES.get(unit.casefold(), MICROMETRES.get(unit))
        if factor is None and unit.casefold() not in UNCALIBRATED:
            return None, [f"{name}: the pixel size is in {unit!r}, an unknown unit, and not used"]
        lengths.append(float(number or 0) * (factor or 0))
    if not lengths or not all(0 < length < 1e6 for length in lengths):
        return None, []
    if max(lengths) > SQUARE * min(lengths):
        text = " x ".join(f"{length:g}" for length in lengths)
        text = f"{name}: pixels of {text} micrometres are not square"
        return None, [f"{text}: sizes are given in pixels only"]
    return lengths[0], []


def kind_of(head):
    """The kind of an image file by its first bytes: "png", "tiff", "jpeg", "bmp", "npy", "czi", "lif", "nd2" or ""."""
    return next((kind for signature, kind in SIGNATURES if head.startswith(signature)), "")


def other_kind(head):
    """What an unreadable file is, by its first bytes, and what to do about it; "" if unknown."""
    return next((text for signature, text in OTHERS if head.startswith(signature)), "")


def unreadable(name, head):
    """The error for a file of no readable kind."""
    if not head:
        return UserError(f"{name}: the file is empty; replace it with an image")
    if other_kind(head):
        return UserError(f"{name}: {other_kind(head)}")
    return UserError(f"{name}: not a readable image ({READABLE})")


def check_size(name, shape, itemsize=1):
    """Refuse an image that would exceed ``MAX_BYTES`` once decoded."""
    size = itemsize
    for side in shape:
        size *= int(side)
    if size <= 0:
        raise UserError(f"{name}: an image without pixels, of shape {tuple(shape)}")
    if size > MAX_BYTES:
        sides = " x ".join(str(side) for side in shape)
        raise UserError(
            f"{name}: {sides} pixels would take {size / 2**30:.1f} GB of memory; "
            "cut it into tiles, or choose a smaller level of a pyramid"
        )


def decode_png(data, name, mask=False):
    """PNG bytes, with checksums verified, because decoders return half an image without an error."""
    damage = png_damage(data)
    if damage:
        raise UserError(f"{name}: damaged PNG ({damage}); copy or download the file again")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour = data[24], data[25]
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
    check_size(name, (height, width), 4 * max(depth, 8) // 8)
    # Deflate compresses by at most a factor of 1032: a header that promises more is wrong.
    if height * width * samples * depth // 8 > 1040 * len(data):
        raise UserError(f"{name}: damaged PNG (fewer bytes than its size requires)")
    if colour == 3 and mask:
        return decode_pillow(data, name, mask)
    array, alpha = _opencv(data, name), None
    if array.ndim == 3:
        alpha = array[..., 3] if array.shape[2] == 4 else None
        array = array[..., 0] if colour in (0, 4) else array[..., 2::-1]  # OpenCV keeps blue first
    if colour == 0 and depth < 8 and mask:
        array = array // (255 // (2**depth - 1))  # decoders spread the values over 8 bits
    turn = _png_orientation(data)
    return Pixels(orient(array, turn), None if alpha is None else orient(alpha, turn))


def _png_orientation(data):
    """The orientation that a PNG's EXIF chunk gives; 1, as stored, if there is none."""
    import warnings

    from PIL import Image

    exif = None
    if b"eXIf" in data:  # perhaps by chance, among the pixels
        exif = next((body for kind, body in _png_chunks(data) if kind == b"eXIf"), None)
    if exif is None:
        return 1
    tags = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(b"Exif\0\0" + bytes(exif))
            return tags.get(274, 1)
    except Exception:  # Pillow raises many kinds; viewers ignore what they cannot read
        return 1


def _opencv(data, name):
    import cv2

    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{name}: damaged image ({str(error).splitlines()[0]})") from None
    if array is None:
        raise UserError(f"{name}: damaged image; copy or download the file again")
    return array


def decode_pillow(data, name, mask=False):
    """PNG, JPEG and BMP bytes, oriented as EXIF says; a mask's palette is not applied."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as image:
                check_size(name, image.size[::-1], 4)
                orientation = image.getexif().get(274, 1)
                lossy = image.format == "JPEG"
                values, alpha = _from_pillow(image, mask)
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds, all for damaged files
        raise UserError(f"{name}: damaged image ({error}); copy the file again") from None
    alpha = None if alpha is None else orient(alpha, orientation)
    return Pixels(orient(values, orientation), alpha, lossy)


def _from_pillow(image, mask):
    """Values and alpha of a Pillow image."""
    if image.mode == "P" and not mask:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.array(image)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        values, alpha = array[..., :-1], array[..., -1]
        return (values[..., 0] if values.shape[2] == 1 else values), alpha
    return array, None


def decode_npy(data, name):
    """The array of a NumPy file; objects are refused, so that no code in it can run."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except Exception as error:
        raise UserError(f"{name}: damaged NumPy file ({error})") from None
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UserError(f"{name}: holds {dtype}, but an image holds numbers")
    check_size(name, shape or (1,), dtype.itemsize)
    body = memoryview(data)[stream.tell() :]
    if len(body) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise UserError(f"{name}: damaged NumPy file (cut short or too long)")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def _png_chunks(data):
    """Yield (kind, body) of each chunk; raises ValueError where the file is damaged."""
    position, end = len(PNG_SIGNATURE), len(data)
    while position + 12 <= end:
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        stop = position + 12 + length
        if stop > end:
            raise ValueError("it is cut short")
        body = memoryview(data)[position + 4 : stop - 4]
        if zlib.crc32(body) != int.from_bytes(data[stop - 4 : stop], "big"):
            raise ValueError("a checksum does not hold")
        yield kind, body[4:]
        if kind == b"IEND":
            return
        position = stop
    raise ValueError("it is cut short")


def png_damage(data):
    """What is wrong with the bytes of a PNG file, or "" if every chunk's checksum is right."""
    if data[12:16] != b"IHDR":
        return "it has no header"
    try:
        for _ in _png_chunks(data):
            pass
    except ValueError as error:
        return str(error)
    return ""


def orient(array, orientation):
    """An image (H, W[, C]) rotated and mirrored according to EXIF or TIFF tag 274."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
