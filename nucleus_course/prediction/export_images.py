"""Label images and images as OME-TIFF and OME-Zarr, written piece by piece, so that a slide need not fit in memory.

The source is a :class:`Whole` array, or anything with its ``shape``, ``dtype``, ``read`` and ``groups``, such as
the :class:`~nucleus_course.prediction.slide_nuclei.Nuclei` of a slide.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from nucleus_course._util.files import atomic_folder, atomic_write

CHUNK = 1024  # pixels; an OME-Zarr array has files of this side, and levels down to it
TILE = 512  # side of a tile of a TIFF
IN_TILES = 1 << 24  # a TIFF of this many pixels or more has tiles
BIG = 1 << 31  # a TIFF is a BigTIFF above this many bytes


class Whole:
    """An array (H, W) or (H, W, C) in memory, as the writers take it."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def read(self, top, left, bottom, right):
        """The rows ``top`` to ``bottom`` and columns ``left`` to ``right``."""
        return self.array[top:bottom, left:right]

    def groups(self):
        """Yield ((top, left), labels (h, w)): rectangles that hold whole nuclei, each nucleus once."""
        yield (0, 0), self.array


class Pieces:
    """A :class:`~nucleus_course.data.slides.Plane` used as a :class:`Whole`; each part is read when it is written."""

    def __init__(self, plane):
        self.read, self.dtype = plane.read, plane.dtype
        self.shape = *plane.shape, *plane.read(0, 0, 1, 1).shape[2:]


def write_tiff(path, labels, **options):
    """Write a label image as a compressed TIFF; a large one in tiles, as BigTIFF if it may need it.

    Args:
        labels: as :class:`Whole`.
        options: for ``tifffile.imwrite``.
    """
    import tifffile

    (height, width), dtype = labels.shape, np.dtype(labels.dtype)
    if height * width < IN_TILES and isinstance(labels, Whole):
        tifffile.imwrite(path, labels.array, compression="zlib", **options)
        return

    def tiles():
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                part = labels.read(top, left, min(top + TILE, height), min(left + TILE, width))
                yield _filled(part.astype(dtype), (TILE, TILE))

    tifffile.imwrite(
        path, tiles(), shape=(height, width), dtype=dtype, tile=(TILE, TILE), compression="zlib",
        bigtiff=height * width * dtype.itemsize > BIG, **options,
    )  # fmt: skip


def _filled(part, sides):
    """A piece padded with zeros below and to the right, to these sides (last two axes)."""
    if part.shape[-2:] == tuple(sides):
        return part
    whole = np.zeros((*part.shape[:-2], *sides), part.dtype)
    whole[..., : part.shape[-2], : part.shape[-1]] = part
    return whole


def write_ome_tiff(path, data):
    """Write the label image of an :class:`~nucleus_course.prediction.exports.Export`."""
    metadata, size = {"axes": "YX", "Name": data.stem}, {}
    if data.pixel_size is not None:
        for axis in "XY":
            metadata[f"PhysicalSize{axis}"] = data.pixel_size
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
        per_cm = 1e4 / data.pixel_size
        size = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    with atomic_write(path) as place:
        write_tiff(
            place, data.labels, ome=True, metadata=metadata, photometric="minisblack", **size
        )


def write_ome_zarr(path, data):
    """OME-Zarr 0.4: the image with its labels in ``labels/nuclei``, or without an image the labels alone.

    Zarr 2 is a folder of JSON files and zlib streams, so no package is needed.
    """
    scores = data.score_of()
    known = [{"score": score} for score in scores.values()] or [{}] * len(data.ids)
    rows = [{"label-value": int(label), **more} for label, more in zip(data.ids, known)]
    about = {"version": "0.4", "properties": rows}
    labels = {"image-label": about}
    with atomic_folder(path) as place:
        if data.image is None:
            _write_levels(place, data.stem, data.labels, data.pixel_size, labels)
            return
        _write_levels(place, data.stem, data.image, data.pixel_size)
        _write_group(place / "labels", {"labels": ["nuclei"]})
        about["source"] = {"image": "../../"}
        _write_levels(place / "labels/nuclei", "nuclei", data.labels, data.pixel_size, labels)


def _write_levels(folder, name, source, pixel_size, attributes=None):
    """Write a multiscale image from (H, W) or (H, W, C), channels first; each level takes every second pixel of the last."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    if len(source.shape) == 3:
        axes.insert(0, {"name": "c", "type": "channel"})
    datasets = []
    while True:
        level = len(datasets)
        stored = _write_array(folder / str(level), source)
        scale = [1.0] * (len(axes) - 2) + [(pixel_size or 1.0) * 2**level] * 2
        steps = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
        if max(source.shape[:2]) <= CHUNK:
            break
        source = _Halved(stored)
    scales = [{"version": "0.4", "name": name, "axes": axes, "datasets": datasets}]
    _write_group(folder, {"multiscales": scales, **(attributes or {})})


def _write_group(folder, attributes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes))


def _write_array(folder, source):
    """Write a Zarr array in chunks of one channel; all-zero chunks have no file."""
    stored = _Stored(folder, source.shape, np.dtype(source.dtype).newbyteorder("<"))
    folder.mkdir(parents=True)
    shape = *stored.shape[2:], *stored.shape[:2]
    about = {
        "zarr_format": 2, "shape": shape, "chunks": [1] * (len(shape) - 2) + list(stored.sides),
        "dtype": stored.dtype.str, "order": "C", "fill_value": 0, "filters": None,
        "compressor": {"id": "zlib", "level": 1}, "dimension_separator": "/",
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(about))
    (height, width), (rows, columns) = stored.shape[:2], stored.sides
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = source.read(top, left, min(top + rows, height), min(left + columns, width))
            channels = np.moveaxis(part, 2, 0) if part.ndim == 3 else part[None]
            for channel, values in enumerate(channels.astype(stored.dtype, copy=False)):
                if not values.any():
                    continue
                file = stored.file(top // rows, left // columns, channel)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(zlib.compress(_filled(values, stored.sides).tobytes(), 1))
    return stored


class _Stored:
    """Reads a Zarr array that :func:`_write_array` wrote; ``shape`` is (H, W) or (H, W, C)."""

    def __init__(self, folder, shape, dtype):
        self.folder, self.shape, self.dtype = Path(folder), tuple(shape), np.dtype(dtype)
        self.sides = tuple(min(CHUNK, side) for side in shape[:2])

    def file(self, row, column, channel=0):
        """The path of a chunk."""
        index = (channel, row, column) if len(self.shape) == 3 else (row, column)
        return self.folder.joinpath(*map(str, index))

    def chunk(self, row, column):
        """The values of a chunk, cut to the array: (h, w) or (h, w, C)."""
        (height, width), (rows, columns) = self.shape[:2], self.sides
        found = np.zeros((*self.shape[2:], rows, columns), self.dtype)
        for channel, values in enumerate(found if found.ndim == 3 else found[None]):
            file = self.file(row, column, channel)
            if file.is_file():
                data = zlib.decompress(file.read_bytes())
                values[...] = np.frombuffer(data, self.dtype).reshape(values.shape)
        found = found[..., : height - row * rows, : width - column * columns]
        return np.moveaxis(found, 0, 2) if found.ndim == 3 else found


class _Halved:
    """Every second pixel of a stored array, chunk by chunk."""

    def __init__(self, stored):
        self.stored, self.dtype = stored, stored.dtype
        self.shape = *(-(-side // 2) for side in stored.shape[:2]), *stored.shape[2:]

    def read(self, top, left, bottom, right):
        """A rectangle that starts at a chunk's corner."""
        rows, columns = self.stored.sides
        down = range(2 * top // rows, -(-min(2 * bottom, self.stored.shape[0]) // rows))
        across = range(2 * left // columns, -(-min(2 * right, self.stored.shape[1]) // columns))
        parts = [[self.stored.chunk(r, c)[::2, ::2] for c in across] for r in down]
        return np.concatenate([np.concatenate(row, axis=1) for row in parts])
