"""Large images that are read piece by piece.

A :class:`Plane` gives rectangles of an image: of a TIFF (tiles, strips, or uncompressed data that can be
mapped), of zarr and OME-Zarr, or of any array. If an image cannot be read in pieces, :func:`open_plane`
returns None, and it is read whole.
"""

import dataclasses
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.canonical import canonical
from nucleus_course.data.containers import open_zarr
from nucleus_course.data.files import MAX_BYTES, pixel_side
from nucleus_course.data.planes import choose_planes

LARGE = 1 << 24  # pixels from which an image is processed piece by piece
BLOCK, BLOCKS = 256, 64  # side and number of the squares that represent a whole image


@dataclass
class Plane:
    """One plane of a large image.

    Attributes:
        pieces: an array to slice.
        index: a tuple for the array's axes, in which "Y" and "X" stand for rows and columns.
        shape: (H, W); dtype: of the values as stored.
        notes, channel, pixel_size: as in :class:`~nucleus_course.data.files.Pixels`.
        file: to be closed in the end, or None.
        name: for errors.
    """

    pieces: object
    index: tuple
    shape: tuple
    dtype: np.dtype
    notes: list = field(default_factory=list)
    channel: str = ""
    pixel_size: float | None = None
    file: object = field(default=None, repr=False)
    name: str = "the image"
    _lock: object = field(default_factory=threading.Lock, repr=False)

    def read(self, top, left, bottom, right):
        """The rows ``top`` to ``bottom`` and columns ``left`` to ``right``: (h, w) or (h, w, 3), as stored.

        Raises:
            UserError: a damaged tile; the message says where.
        """
        spans = {"Y": slice(top, bottom), "X": slice(left, right)}
        place = tuple(spans[i] if isinstance(i, str) else i for i in self.index)
        with self._lock:
            try:
                piece = np.asarray(self.pieces[place])
            except (UserError, OSError, MemoryError):
                raise
            except Exception as error:  # each codec raises its own kind
                why = " ".join(str(error).split())[:160]
                raise UserError(
                    f"{self.name}: damaged, rows {top} to {bottom} and columns {left} to {right} cannot be read "
                    f"({why}); copy it again"
                ) from None
        first = next(i for i in self.index if not isinstance(i, int))
        return np.moveaxis(piece, 0, -1) if isinstance(first, slice) else piece

    def close(self):
        """Close the file."""
        if self.file is not None:
            self.file.close()


def as_plane(array, pixels=None):
    """A :class:`Plane` of an array (H, W), (H, W, 3 or 4) or (3 or 4, H, W): NumPy, zarr, dask, anything to slice.

    ``pixels`` (:class:`~nucleus_course.data.files.Pixels`) gives channel and pixel size.

    Raises:
        UserError: another shape.
    """
    try:
        shape = tuple(int(side) for side in array.shape)
    except ValueError:  # NaN
        raise UserError(
            f"a dask array of unknown size, {array.shape}: call its compute_chunk_sizes() first"
        ) from None
    colour = slice(0, 3)
    index: tuple = ("Y", "X")
    if len(shape) == 3:
        index = (*index, colour) if shape[2] in (3, 4) else (colour, *index)
    if (
        len(shape) not in (2, 3)
        or 0 in shape
        or (len(shape) == 3 and shape[index.index(colour)] not in (3, 4))
    ):
        raise UserError(
            f"a slide is (H, W), (H, W, 3 or 4) or (3 or 4, H, W); this one has the shape {shape}"
        )
    sides = shape[index.index("Y")], shape[index.index("X")]
    about = {} if pixels is None else {"channel": pixels.channel, "pixel_size": pixels.pixel_size}
    return Plane(array, index, sides, np.dtype(array.dtype), **about)


def lazy_plane(image):
    """The :class:`Plane` of a large image that is not in memory: a file, a dask or zarr array, a NumPy memory map.

    Returns:
        None for any other image, and below 2**24 pixels.

    Raises:
        UserError: as :func:`open_plane` and :func:`as_plane`.
    """
    if isinstance(image, (str, Path)):
        return open_plane(image) if Path(image).exists() else None
    shape = getattr(image, "shape", ())
    if type(image) is np.ndarray or len(shape) not in (2, 3):
        return None
    plane = as_plane(image)
    return plane if plane.shape[0] * plane.shape[1] >= LARGE else None


def open_plane(path, **wanted):
    """The :class:`Plane` of a large TIFF or of a zarr folder, without reading it.

    Args:
        path: a file or folder.
        wanted: the choices of :func:`~nucleus_course.data.read.read_image`.

    Returns:
        None for an image of fewer than 2**24 pixels, or one that cannot be read in pieces.

    Raises:
        UserError: damaged, or the user has to choose.
    """
    path = Path(path)
    if path.is_dir():
        return _open_zarr(path, wanted)
    with open(path, "rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
    import tifffile

    try:
        file = tifffile.TiffFile(path, _multifile=None)
    except Exception:  # reading it whole reports what is wrong
        return None
    plane = _open_tiff(file, str(path), wanted)
    if plane is None:
        file.close()
    return plane


def _open_tiff(file, name, wanted):
    from nucleus_course.data.tiff import (
        MIN_IS_BLACK,
        RGB,
        YCBCR,
        has_alpha,
        not_alpha,
        select_series,
    )

    try:
        if max(int(np.prod(s.shape[-3:], dtype=float)) for s in file.series) < LARGE:
            return None
        series, axes, names, size, index, notes = select_series(file, name, dict(wanted))
    except UserError:
        raise
    except Exception:
        return None
    page, sizes = series.keyframe, dict(zip(axes, series.shape))
    shape = sizes["Y"], sizes["X"]
    plain = page.photometric in (MIN_IS_BLACK, RGB, YCBCR) and series.dtype.kind in "buif"
    turned = int(page.tags.valueof(274, 1) or 1) != 1
    projected = any(isinstance(i, slice) for i in index.values())
    odd = (
        turned or projected or axes.index("Y") > axes.index("X") or sizes.get("S", 3) not in (3, 4)
    )
    if shape[0] * shape[1] < LARGE or odd or not plain:
        return None
    if sizes.get("S") == 4 and not has_alpha(page):
        raise not_alpha(name)
    pieces = _tiff_pieces(file, series, name)
    if pieces is None:
        return None
    place = tuple(a if a in "YX" else slice(0, 3) if a == "S" else index[a] for a in axes)
    channel = names[index["C"]] if names and "C" in index else ""
    return Plane(pieces, place, shape, series.dtype, notes, channel, size, file, name)


def _tiff_pieces(file, series, name):
    """An array to slice: the mapped file, or zarr's view of its tiles or strips; None if there is neither."""
    from nucleus_course.data.tiff import check_page

    page = series.keyframe
    if series.dataoffset is not None:  # one uncompressed block
        end = series.dataoffset + series.nbytes
        if end > file.filehandle.size:
            raise UserError(f"{name}: damaged TIFF (it is cut short); copy the file again")
        dtype = np.dtype(file.byteorder + series.dtype.char)
        return np.memmap(file.filehandle.path, dtype, "r", series.dataoffset, series.shape)
    if int(np.prod(page.chunks)) * series.dtype.itemsize > MAX_BYTES // 16:
        return None  # one strip holds most of the image
    if any(one is None for one in series.pages):
        return None
    for one in series.pages:
        check_page(one, file, name)
    try:
        import zarr
    except ImportError:
        return None
    return zarr.open(series.aszarr(level=0), mode="r")


def _open_zarr(path, wanted):
    array, axes, names, sides, choices = open_zarr(path, wanted)
    sizes = dict(zip(axes, array.shape))
    projected = choices.get("plane") in ("max", "focus")
    if sizes["Y"] * sizes["X"] < LARGE or projected or axes.index("Y") > axes.index("X"):
        return None
    names = names if len(names) == sizes.get("C", 1) else []
    index, notes = choose_planes(str(path), axes, array.shape, names, choices)
    size, unused = pixel_side(str(path), sides)
    place = tuple(a if a in "YX" else slice(0, 3) if a == "S" else index[a] for a in axes)
    channel = names[index["C"]] if names and "C" in index else ""
    dtype = np.dtype(array.dtype)
    shape = sizes["Y"], sizes["X"]
    return Plane(array, place, shape, dtype, notes + unused, channel, size, name=str(path))


def sample_blocks(plane, count=BLOCKS, side=BLOCK):
    """Squares spread evenly over a plane: a list of up to ``count`` arrays (side, side[, 3])."""
    rows = max(1, round((count * plane.shape[0] / plane.shape[1]) ** 0.5))
    tops, lefts = (
        np.unique(np.linspace(0, max(0, length - side), number + 2)[1:-1].astype(int))
        for length, number in zip(plane.shape, (min(rows, count), max(1, count // rows)))
    )
    return [plane.read(t, x, t + side, x + side) for t in tops for x in lefts]


def canonical_of(blocks, polarity="auto"):
    """How a large image is normalised, decided from a sample of it (:func:`sample_blocks`).

    Each block votes on the polarity; channel, range and power come from all blocks side by side.

    Returns:
        :class:`~nucleus_course.data.canonical.Canonical`; its ``image`` shows the blocks.
    """
    some = [b for b in blocks if b.dtype.kind != "f" or np.count_nonzero(np.isfinite(b)) > 1]
    blocks = some or blocks  # without those outside a mosaic, which hold NaN alone
    evidence = float(np.mean([canonical(block).evidence for block in blocks]))
    if polarity == "auto":
        polarity = "bright" if evidence >= 0 else "dark"
    height, width = (min(block.shape[axis] for block in blocks) for axis in (0, 1))
    seen = canonical(np.concatenate([block[:height, :width] for block in blocks]), polarity)
    return dataclasses.replace(seen, evidence=evidence)
