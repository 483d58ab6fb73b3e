"""Images that are not one plain file: zarr folders, and microscope vendors' files, read by bioio.

Both give :class:`~nucleus_course.data.files.Pixels` of the chosen plane; no other plane is read.
"""

import math
from pathlib import Path, PurePosixPath

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.files import Pixels, check_size, name_channels, pixel_side
from nucleus_course.data.planes import arrange, choose_number, choose_planes

# kind -> description, the package that reads it
VENDORS = {
    "czi": ("a Zeiss CZI file", "bioio-czi"),
    "lif": ("a Leica LIF file", "bioio-lif"),
    "nd2": ("a Nikon ND2 file", "bioio-nd2"),
}
METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json")
INSTALL = "pip install 'nucleus-course[formats]'"


def is_zarr(path):
    """Whether a folder is a zarr array or group.

    >>> is_zarr(".")
    False
    """
    return any((Path(path) / name).is_file() for name in METADATA)


def without_zarr(names):
    """The names of an archive's files, with each zarr image as one name, that of its folder.

    >>> without_zarr(["a.png", "b.zarr/.zgroup", "b.zarr/0/.zarray", "b.zarr/0/0.0"])
    ['a.png', 'b.zarr']
    """
    images = {path.parent for path in map(PurePosixPath, names) if path.name in METADATA}
    found = {}
    for name in names:
        outer = [folder for folder in PurePosixPath(name).parents if folder in images]
        found[outer[-1].as_posix() if outer else name] = None
    return list(found)


# ---------------------------------------------------------------- zarr


def decode_zarr(path, wanted):
    """A plane of an OME-Zarr image, or of a zarr array that names its axes or has two.

    Args:
        path: the folder.
        wanted: the choices of :func:`~nucleus_course.data.read.read_image`.

    Raises:
        UserError: zarr is missing, the folder is damaged, the axes are unknown, or the user has to choose.
    """
    return _zarr_plane(path, *open_zarr(path, wanted))


def open_zarr(path, wanted):
    """The array of a zarr image, unread: (array, axes, names of the channels, a pixel's sides as for
    :func:`~nucleus_course.data.files.pixel_side`, remaining choices); arguments and errors as for :func:`decode_zarr`.
    """
    try:
        import zarr
    except ImportError:
        raise UserError(f"{path}: zarr images need the package zarr: {INSTALL}") from None
    try:
        node = zarr.open(str(path), mode="r")
        about = dict(node.attrs)
    except Exception as error:  # zarr raises many kinds on damaged metadata
        raise UserError(f"{path}: a damaged zarr folder ({_short(error)})") from None
    about, wanted = about.get("ome", about), dict(wanted)
    series, level = wanted.pop("series", None), wanted.pop("level", None)
    if hasattr(node, "shape"):
        _only_one(path, series=series, level=level)
        return node, _array_axes(path, node, about), [], [], wanted
    if "multiscales" not in about:
        node, about = _zarr_series(path, node, about, series)
    else:
        _only_one(path, series=series)
    scales = about["multiscales"][0]
    sets = scales.get("datasets", [])
    try:
        dataset = sets[choose_number(path, "level", level, len(sets) or 1)]
        array = node[dataset["path"]]
    except (KeyError, IndexError):
        raise UserError(f"{path}: a damaged OME-Zarr: its largest level is missing") from None
    axes = [a if isinstance(a, str) else a.get("name", "") for a in scales.get("axes", [])]
    axes = _check_axes(path, "".join(axis[:1].upper() for axis in axes), array.shape)
    channels = (about.get("omero") or {}).get("channels", [])
    names = [str(channel.get("label", "")) for channel in channels]
    return array, axes, names, _zarr_sides(scales, dataset, axes), wanted


def _zarr_series(path, node, about, series):
    """The image of a group of images (as bioformats2raw writes them): node and metadata."""
    if "plate" in about or "well" in about:
        raise UserError(f"{path}: a plate of many images: give the folder of one, such as A/1/0")
    images = sorted((name for name in node.group_keys() if name.isdigit()), key=int)
    images = [name for name in images if "multiscales" in _ome(node[name])]
    if not images:
        raise UserError(
            f"{path}: a zarr group without OME-Zarr's multiscales: give the array in it"
        )
    if series is None and len(images) > 1:
        raise UserError(
            f"{path}: holds {len(images)} pictures: choose series 0 to {len(images) - 1}"
        )
    node = node[images[choose_number(path, "series", series, len(images))]]
    return node, _ome(node)


def _ome(node):
    about = dict(node.attrs)
    return about.get("ome", about)


def _array_axes(path, array, about):
    """The axes of a bare array: its own names, or rows and columns if there are two."""
    stored = getattr(array, "metadata", None)  # zarr 2, the newest for Python 3.10, has none
    named = about.get("_ARRAY_DIMENSIONS") or getattr(stored, "dimension_names", None)
    if not named and array.ndim == 2:
        return "YX"
    axes = "".join(str(name)[:1].upper() for name in named or ())
    return _check_axes(path, axes, array.shape)


def _check_axes(path, axes, shape):
    """The axes; samples are those of a colour only if there are three."""
    if not axes:
        raise UserError(
            f"{path}: a zarr array of shape {tuple(shape)} without axes: which are rows, columns, "
            "channels or planes is unknown; save it as OME-Zarr, or name the axes (dimension_names, _ARRAY_DIMENSIONS)"
        )
    if len(axes) != len(shape) or len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
        raise UserError(
            f"{path}: its axes are {axes}, its shape {tuple(shape)}: it needs Y and X, and each axis only once"
        )
    colour = dict(zip(axes, shape)).get("S") == 3
    return axes if colour or "C" in axes else axes.replace("S", "C")


def _zarr_sides(scales, dataset, axes):
    """(number, unit) of a pixel's sides in X and Y: the level's scale, times the scale of all levels."""
    try:
        steps = dataset["coordinateTransformations"] + scales.get("coordinateTransformations", [])
        steps = [t["scale"] for t in steps if t["type"] == "scale"]
        places = axes.index("X"), axes.index("Y")
        units = [scales["axes"][i]["unit"] for i in places]
        numbers = [math.prod(float(step[i]) for step in steps) for i in places]
    except (KeyError, IndexError, TypeError, ValueError):
        return []
    return list(zip(numbers, units)) if steps else []


def _zarr_plane(path, array, axes, names, sides, wanted):
    def take(index):
        picks = tuple(index.get(axis, slice(None)) for axis in axes)
        left = [axis for axis in axes if not isinstance(index.get(axis), int)]
        try:
            return np.asarray(array[picks]), left
        except (OSError, MemoryError):
            raise
        except Exception as error:  # each codec raises its own kind
            raise UserError(
                f"{path}: damaged, a chunk cannot be read ({_short(error)}); copy it again"
            ) from None

    return _plane(str(path), axes, array.shape, names, array.dtype, sides, wanted, take)


# ---------------------------------------------------------------- vendors' files


def decode_vendor(path, kind, wanted):
    """A plane of a CZI, LIF or ND2 file, read by bioio and its plugin.

    Args:
        path: the file; kind: a key of :data:`VENDORS`; wanted: as for :func:`decode_zarr`.

    Raises:
        UserError: a package is missing, the file is damaged, or the user has to choose.
    """
    called, package = VENDORS[kind]
    if not isinstance(path, (str, Path)):
        raise UserError(f"{called} is read from a folder, not from an archive: unpack it first")
    try:
        from bioio import BioImage

        image = BioImage(str(path))
        scenes = list(image.scenes)
    except ImportError:
        raise UserError(
            f"{path}: {called} needs the packages bioio and {package}: {INSTALL}; or export it as OME-TIFF"
        ) from None
    except (
        Exception
    ) as error:  # each plugin raises its own kinds; a missing one has no class of its own
        if "UnsupportedFileFormat" in type(error).__name__:
            raise UserError(
                f"{path}: {called} needs the package {package}: {INSTALL}; or export it as OME-TIFF"
            ) from None
        raise UserError(f"{path}: cannot be read as {called} ({_short(error)})") from None
    wanted = dict(wanted)
    series, level = wanted.pop("series", None), wanted.pop("level", None)
    if series is None and len(scenes) > 1:
        listed = ", ".join(f"{i}: {name}" for i, name in enumerate(scenes[:8]))
        raise UserError(f"{path}: holds {len(scenes)} pictures: choose a series ({listed})")
    series = choose_number(path, "series", series, len(scenes))
    level = choose_number(path, "level", level, len(image.resolution_levels))
    try:
        image.set_scene(scenes[series])
        if level:
            image.set_resolution_level(level)
        return _vendor_plane(path, image, wanted)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read as {called} ({_short(error)})") from None


def _vendor_plane(path, image, wanted):
    axes, shape = image.dims.order, image.shape
    names = [str(name) for name in image.channel_names or []]
    size = image.physical_pixel_sizes
    sides = [(side, "µm") for side in (size.X, size.Y) if side] if size and size.X else []

    def take(index):
        left = [axis for axis in axes if not isinstance(index.get(axis), int)]
        chosen = {axis: value for axis, value in index.items() if isinstance(value, int)}
        return np.asarray(image.get_image_dask_data("".join(left), **chosen)), left

    return _plane(str(path), axes, shape, names, image.dtype, sides, wanted, take)


def _plane(name, axes, shape, names, dtype, sides, wanted, take):
    """:class:`Pixels` of the plane that ``wanted`` names; ``take(index)`` returns an array and its axes."""
    sizes = dict(zip(axes, shape))
    names = names if len(names) == sizes.get("C", 1) else []
    index, notes = choose_planes(name, axes, shape, names, wanted)
    kept = [side for axis, side in sizes.items() if not isinstance(index.get(axis), int)]
    check_size(name, kept, np.dtype(dtype).itemsize)
    values, left = take(index)
    values = arrange(values, left, wanted.get("plane"))
    if values.dtype.kind not in "buif":
        raise UserError(f"{name}: holds {values.dtype}, but an image holds numbers")
    number = index.get("C", 0)
    channel, channels = names[number] if names else "", name_channels(names, sizes.get("C", 1))
    size, unused = pixel_side(name, sides)
    notes += unused
    return Pixels(np.ascontiguousarray(values), None, False, notes, channel, size, channels, number)


def _only_one(path, **given):
    for option, value in given.items():
        if value not in (None, 0, "0"):
            raise UserError(f"{path}: {option} {value!r}: this file has only one {option}")


def _short(error):
    return " ".join(str(error).split())[:160] or type(error).__name__
