"""TIFF as microscopes write it: OME and ImageJ metadata, series, pyramids, planes, odd sample types."""

import io
import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.files import Pixels, check_size, name_channels, orient
from nucleus_course.data.planes import arrange, choose_number, choose_planes

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage becomes an error here
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
FAX = (2, 3, 4)
JPEGS = (6, 7, 33003, 33005, 34712, 34892)  # compressions that may change values
PREVIEW = 4  # a picture smaller than the largest by this factor is a preview
MICROMETRES = {"m": 1e6, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3}


def decode_tiff(source, name, wanted, mask=False):
    """One plane of a TIFF as :class:`~nucleus_course.data.files.Pixels`.

    ``source`` is a path or bytes; ``wanted`` the choices by name: channel, plane, time, series, level.
    Raises UserError for damage, for unusual kinds, and if the user has to choose.
    """
    import tifffile

    stream = source if isinstance(source, (str, Path)) else io.BytesIO(source)
    try:
        with tifffile.TiffFile(stream, _multifile=None) as file:
            _check_companions(file, name)
            return _read(file, name, dict(wanted), mask)
    except UserError:
        raise
    except Exception as error:  # tifffile and its codecs raise many kinds on damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name}: damaged TIFF, or of an unusual kind ({reason})") from None


def _check_companions(file, name):
    """OME-TIFF may consist of several files; only those beside this one are allowed."""
    if file.is_ome:
        for other in re.findall(r'FileName="([^"]*)"', file.ome_metadata or ""):
            if "/" in other or "\\" in other or other in ("", ".", ".."):
                raise UserError(f"{name}: refers to {other!r}, outside its folder")


def select_series(file, name, wanted):
    """What to read from an open TIFF: (series, axes, names of the channels, pixel size in micrometres or None,
    index by axis, notes); ``index`` and errors as for :func:`~nucleus_course.data.planes.choose_planes`."""
    number, notes = _series_number(file, name, wanted.pop("series", None))
    levels = file.series[number].levels
    series = levels[choose_number(name, "level", wanted.pop("level", None), len(levels))]
    axes = series.axes
    if "S" in axes and series.keyframe.photometric not in (RGB, YCBCR, CMYK):
        axes = axes.replace("S", "C" if "C" not in axes else "Q")  # samples, but not of colour
    names, size = _description(file, number)
    names = names if len(names) == dict(zip(axes, series.shape)).get("C", 1) else []
    index, said = choose_planes(name, axes, series.shape, names, wanted)
    return series, axes, names, size, index, notes + said


def _read(file, name, wanted, mask):
    series, axes, names, size, index, notes = select_series(file, name, wanted)
    page, select = series.keyframe, axes
    values = _take(file, series, axes, index, name)
    axes = [axis for axis in axes if axis in "YXS" or isinstance(index[axis], slice)]
    values = arrange(values, axes, wanted.get("plane"))
    values, alpha = _samples(values, page, name, mask)
    turn = int(page.tags.valueof(274, 1) or 1)
    alpha = None if alpha is None else orient(alpha, turn)
    number = index.get("C", 0)
    channel = names[number] if names and "C" in index else ""
    channels = name_channels(names, dict(zip(select, series.shape)).get("C", 1))
    return Pixels(
        orient(values, turn),
        alpha,
        page.compression in JPEGS,
        notes,
        channel,
        size,
        channels,
        number,
    )


def _series_number(file, name, wanted):
    """The series to read, and notes about it: the requested one, or the only one that is not a preview."""
    if not len(file.series):
        raise UserError(f"{name}: a TIFF without a picture")
    if wanted is not None:
        return choose_number(name, "series", wanted, len(file.series)), []
    areas = {}
    for number, series in enumerate(file.series):
        sizes = dict(zip(series.axes, series.shape))
        if "Y" in sizes and "X" in sizes and not series.keyframe.is_reduced:
            areas[number] = sizes["Y"] * sizes["X"]
    if not areas:
        raise UserError(f"{name}: a TIFF without a picture of rows and columns")
    best = max(areas, key=areas.get)
    rivals = [n for n, area in areas.items() if area * PREVIEW > areas[best]]
    if len(rivals) > 1:
        listed = ", ".join(
            f"{n}: {'x'.join(map(str, file.series[n].shape))} ({file.series[n].axes})"
            for n in rivals
        )
        raise UserError(f"{name}: holds {len(rivals)} pictures: choose a series ({listed})")
    if len(areas) == 1:
        return best, []
    return best, [f"{name}: the largest of {len(areas)} pictures is read (series {best})"]


def _take(file, series, axes, index, name):
    """The part of a series that ``index`` names; only the necessary pages are decoded."""
    page = series.keyframe
    inner = len(page.shape)
    leading, tail = series.shape[: len(axes) - inner], series.shape[len(axes) - inner :]
    by_page = tail == page.shape and int(np.prod(leading)) == len(series.pages)
    picks = [index.get(axis, slice(None)) for axis in axes]
    if not by_page:
        check_size(name, series.shape, series.dtype.itemsize)
        check_page(page, file, name)
        return series.asarray()[tuple(picks)]
    numbers = np.arange(len(series.pages)).reshape(leading)[tuple(picks[: len(leading)])]
    check_size(name, numbers.shape + tail, series.dtype.itemsize)
    planes = []
    for number in numbers.ravel():
        plane = series.pages[int(number)]
        if plane is None:
            raise UserError(f"{name}: a plane is in another file, which is missing")
        check_page(plane, file, name)
        planes.append(plane.asarray()[tuple(picks[len(leading) :])])
    return np.stack(planes).reshape(numbers.shape + planes[0].shape)


def check_page(page, file, name):
    """Raise UserError unless all data of a page lie in the file: missing strips would be read as zeros."""
    end = file.filehandle.size
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        if count <= 0 or offset <= 0 or offset + count > end:
            raise UserError(f"{name}: damaged TIFF (it is cut short); copy the file again")


def _samples(values, page, name, mask):
    """Values and alpha of a plane: palettes applied, white zeros inverted, CMYK converted to RGB."""
    kind, bits = page.photometric, page.bitspersample
    if values.dtype.kind not in "buif":
        raise UserError(f"{name}: holds {values.dtype}, but an image holds numbers")
    if kind == PALETTE and not mask and page.colormap is not None:
        return (page.colormap[:, values].transpose(1, 2, 0) >> 8).astype(np.uint8), None
    if kind == MIN_IS_WHITE and bits <= 8 and (not mask or page.compression in FAX):
        top = values.dtype.type(2**bits - 1) if values.dtype != bool else True
        return np.bitwise_xor(values, top), None
    if kind == CMYK and values.ndim == 3:
        if values.dtype != np.uint8 or values.shape[2] < 4:
            raise UserError(f"{name}: CMYK of {values.dtype}: save it as RGB")
        ink = 255 - values[..., :4].astype(np.uint16)
        return (ink[..., :3] * ink[..., 3:] // 255).astype(np.uint8), None
    if kind not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, YCBCR, 32803, 34892):
        raise UserError(
            f"{name}: an unusual kind of colour (photometric {int(kind)}): save it as RGB"
        )
    if values.ndim == 3:
        if values.shape[2] == 4:
            return values[..., :3], values[..., 3]
        if values.shape[2] != 3:
            raise UserError(
                f"{name}: RGB with {values.shape[2]} samples: save the ones to use as a file of their own"
            )
    return values, None


def _description(file, number):
    """(names of the channels, pixel size in micrometres or None) from the file's metadata."""
    try:
        if file.is_ome:
            return _from_ome(file.ome_metadata, number)
        if file.is_imagej:
            return _from_imagej(file)
        if file.is_shaped:
            channel = (file.shaped_metadata[number] or {}).get("Channel", {})
            names = channel.get("Name", []) if isinstance(channel, dict) else []
            return [str(name) for name in names] if isinstance(names, (list, tuple)) else [], None
    except (ElementTree.ParseError, IndexError, KeyError, TypeError, ValueError, AttributeError):
        pass  # without metadata, the user has to choose
    return [], None


def _from_ome(text, number):
    images = [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")]
    pixels = images[number]
    channels = [e.attrib for e in pixels if e.tag.endswith("}Channel")]
    names = [c.get("Name") or c.get("Fluor") or f"channel {i}" for i, c in enumerate(channels)]
    size = float(pixels.get("PhysicalSizeX", 0))
    size *= MICROMETRES.get(pixels.get("PhysicalSizeXUnit", "µm"), 0)
    return names, size if 0 < size < 1e6 else None


def _from_imagej(file):
    data = file.imagej_metadata or {}
    count = int(data.get("channels", 1))
    names = [str(label).split(" - ")[-1] for label in list(data.get("Labels", []))[:count]]
    tag = file.pages[0].tags.valueof(282)
    scale = MICROMETRES.get(str(data.get("unit", "")).replace("\\u00B5", "µ"), 0)
    size = scale * tag[1] / tag[0] if tag and tag[0] else 0
    return names, size if 0 < size < 1e6 else None
