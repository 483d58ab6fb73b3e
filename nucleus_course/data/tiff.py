"""TIFF as microscopes write it: OME and ImageJ metadata, series, pyramids, planes, odd sample types."""

import io
import logging
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.files import Pixels, check_size, name_channels, orient, pixel_side
from nucleus_course.data.planes import arrange, choose_number, choose_planes

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage becomes an error here
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
FAX = (2, 3, 4)
JPEGS = (6, 7, 33003, 33005, 34712, 34892)  # compressions that may change values
PREVIEW = 4  # a picture smaller than the largest by this factor is a preview
ALPHA = (1, 2)  # kinds of extra samples that are transparency


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
    axes, page = series.axes, series.keyframe
    colour = page.photometric in (RGB, YCBCR, CMYK)
    if page.photometric == RGB and "S" in axes and not has_alpha(page):
        samples = series.shape[axes.index("S")]
        colour = samples == 3 or (samples == 4 and wanted.get("channel") is None)
    if "S" in axes and not colour:
        axes = axes.replace("S", "C" if "C" not in axes else "Q")  # samples, but not of colour
    names, sides = _description(file, number)
    whole, part = (dict(zip(s.axes, s.shape)) for s in (levels[0], series))
    sides = [(n * _step(whole.get(a), part.get(a)), u) for (n, u), a in zip(sides, "XY")]
    size, unused = pixel_side(name, sides)
    names = names if len(names) == dict(zip(axes, series.shape)).get("C", 1) else []
    index, said = choose_planes(name, axes, series.shape, names, wanted)
    return series, axes, names, size, index, notes + said + unused


def has_alpha(page):
    """Whether the file says that the fourth sample of an RGB page is transparency."""
    return page.samplesperpixel == 4 and any(kind in ALPHA for kind in page.extrasamples[:1])


def not_alpha(name):
    """The error for RGB with a fourth sample of which the file does not say what it is."""
    return UserError(
        f"{name}: RGB and a fourth channel that is not marked as transparency: "
        "choose channel 0 to 3, or save it as RGB"
    )


def _step(whole, part):
    """How many pixels of the largest level, of ``whole`` pixels, make one of a level with ``part``.

    >>> _step(101, 51), _step(101, 50), _step(300, 200)
    (2, 2, 1.5)
    """
    if not whole or not part:
        return 1
    nearest = max(1, round(whole / part))
    return nearest if part in (whole // nearest, -(-whole // nearest)) else whole / part


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
        shift = 8 if page.colormap.max() > 255 else 0  # some programs store 8 bits
        return (page.colormap[:, values].transpose(1, 2, 0) >> shift).astype(np.uint8), None
    whole = values.dtype.kind in "bu"
    if kind == MIN_IS_WHITE and whole and (not mask or page.compression in FAX):
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
        if values.shape[2] == 4 and kind == RGB and not has_alpha(page):
            if values[..., 3].min() != values[..., 3].max():
                raise not_alpha(name)
            return values[..., :3], None  # the same everywhere: it says nothing
        if values.shape[2] == 4:
            return values[..., :3], values[..., 3]
        if values.shape[2] != 3:
            raise UserError(
                f"{name}: RGB with {values.shape[2]} samples: save the ones to use as a file of their own"
            )
    return values, None


def _description(file, number):
    """From the file's metadata: (names of the channels, (number, unit) of a pixel's sides in X and Y)."""
    try:
        if file.is_ome:
            return _from_ome(file, number)
        if file.is_imagej:
            return _from_imagej(file)
        if file.is_shaped:
            channel = (file.shaped_metadata[number] or {}).get("Channel", {})
            names = channel.get("Name", []) if isinstance(channel, dict) else []
            return [str(name) for name in names] if isinstance(names, (list, tuple)) else [], []
    except (ElementTree.ParseError, IndexError, KeyError, TypeError, ValueError, AttributeError):
        pass  # without metadata, the user has to choose
    return [], []


def _from_ome(file, number):
    root = ElementTree.fromstring(file.ome_metadata)
    images = [e for e in root.iter() if e.tag.endswith("}Pixels") and _is_here(e, file, root)]
    if len(images) != len(file.series):
        return [], []  # which description belongs to which series is unknown
    pixels = images[number]
    channels = [e.attrib for e in pixels if e.tag.endswith("}Channel")]
    names = [c.get("Name") or c.get("Fluor") or f"channel {i}" for i, c in enumerate(channels)]
    axes = [a for a in "XY" if f"PhysicalSize{a}" in pixels.attrib]
    size, unit = "PhysicalSize{}".format, "PhysicalSize{}Unit".format
    sides = [(float(pixels.get(size(a))), pixels.get(unit(a), "µm")) for a in axes]
    return names, sides if "X" in axes else []


def _is_here(pixels, file, root):
    """Whether data of an OME image are in this file or one beside it; tifffile leaves out the others."""
    for data in pixels:
        if data.tag.endswith("}TiffData"):
            uuid = next((e for e in data if e.tag.endswith("}UUID")), None)
            other = "" if uuid is None else uuid.get("FileName", "")
            if other.lower() in ("", file.filename.lower()) or uuid.text == root.get("UUID"):
                return True
            handle = file.filehandle
            if handle.is_file and os.path.isfile(os.path.join(handle.dirname, other)):
                return True
    return False


def _from_imagej(file):
    data = file.imagej_metadata or {}
    count = int(data.get("channels", 1))
    names = [str(label).split(" - ")[-1] for label in list(data.get("Labels", []))[:count]]
    unit = str(data.get("unit", "")).replace("\\u00B5", "µ")
    tags = [file.pages[0].tags.valueof(code) for code in (282, 283)]
    return names, [(tag[1] / tag[0], unit) for tag in tags if tag and tag[0]]
