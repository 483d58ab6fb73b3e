"""From the files of one image to its pixels and its label map, with every problem reported.

Repairs (the image is used): empty masks and exact duplicates are dropped, masks with several
channels are flattened, overlapping pixels go to the smaller nucleus (so that a small nucleus on a
large one survives) and are counted. Refusals (the image is left out, since its truth would be
incomplete): an unreadable image or mask, a mask of another shape, several images in one folder.
"""

import errno
import io
from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.files import kind_of
from nucleus_course.data.image_types import image_type
from nucleus_course.data.lint import NOTED, REFUSED, REPAIRED, Issue
from nucleus_course.data.masks import Unclear, nuclei_in
from nucleus_course.data.read import is_grey, read_pixels, to_rgb8, to_uint16

MAX_NUCLEI = 65535  # the cache stores uint16 label maps
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
JPEG_2000 = (33003, 33005, 34712)  # TIFF compressions


@dataclass
class Decoded:
    """One image: ``image`` uint8 (H, W) if grey or (H, W, 3), ``labels`` uint16 (H, W), or None and
    an issue that says why; ``raw`` as from :func:`~nucleus_course.data.read.to_uint16`. Ids 1..n follow the sorted
    names of the mask files. ``passing`` names a file whose failure :func:`may_pass`."""

    image_id: str
    image: np.ndarray = None
    raw: np.ndarray = None
    labels: np.ndarray = None
    type: str = ""
    issues: list = field(default_factory=list)
    passing: str = ""

    @property
    def usable(self):
        return self.image is not None


def decode_entry(entry, read, labelled=True, reading=None):
    """Decode one :class:`~nucleus_course.data.bbbc038.ImageFiles`; never raises for bad content.

    ``read(name)`` returns the bytes of a file. ``labelled`` is False for a source without any masks (such as
    stage1_test): then images without masks are not reported. ``reading`` are the choices of
    :func:`~nucleus_course.data.read.read_image`.
    """
    result = Decoded(entry.image_id)

    def report(file, kind, message, action):
        result.issues.append(Issue(entry.image_id, file, kind, message, action))

    if entry.rivals:
        message = f"{entry.rivals} images lie together, none called {entry.image_id!r}: each needs its own folder, <id>/images/<id>.png"
        report(entry.image, "several images", message, REFUSED)
        return result
    if labelled and not entry.masks and entry.annotation is None:
        if entry.unread:
            report(
                entry.unread[0],
                "no masks",
                f"{pluralize(len(entry.unread), 'file')} among the masks, none of them a readable image: "
                "export the annotation as masks or as a label image",
                REFUSED,
            )
            return result
        if not entry.has_mask_folder:
            report(
                entry.image,
                "no masks",
                "an image without annotation (no masks folder), so its nuclei are unknown",
                REFUSED,
            )
            return result
        report(
            entry.image,
            "no masks",
            "an empty masks folder: taken as an image without nuclei",
            NOTED,
        )
    try:
        pixels = read_pixels(read_bytes(read, entry.image), entry.image, **(reading or {}))
        image = to_rgb8(pixels.values)
    except UserError as error:
        report(entry.image, "unreadable image", _short(error, entry.image), REFUSED)
        result.passing = entry.image if may_pass(error) else ""
        return result
    for line in pixels.notes:
        report(entry.image, "choice", _short(line, entry.image), NOTED)
    try:
        labels = _labels(entry, read, image.shape[:2], report)
    except _Refused as refused:
        result.passing = refused.passing
        return result
    result.type = image_type(image)
    result.image = np.ascontiguousarray(image[..., 0]) if is_grey(image) else image
    result.raw = to_uint16(pixels.values)
    result.labels = labels
    return result


def read_bytes(read, name):
    """``read(name)``, with any failure as a UserError."""
    try:
        return read(name)
    except UserError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, RuntimeError (password) ...
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise UserError(f"{name}: cannot be read ({reason})") from None


def may_pass(error):
    """Whether a failure may be gone without a change of the file: a missing package, permission, memory, a faulty disk.

    The file that a broken link names is part of a source's fingerprint, so that does not count.
    """
    if "pip install" in str(error):
        return True
    while error is not None:
        if isinstance(error, (ImportError, MemoryError)):
            return True
        if isinstance(error, OSError) and error.errno not in (None, *GONE):
            return True  # Pillow's errors about damaged files have no number
        error = error.__cause__ or error.__context__
    return False


class _Refused(Exception):
    """A mask that makes the image's truth incomplete; already reported. ``passing`` as in :class:`Decoded`."""

    passing = ""


def _labels(entry, read, shape, report):
    """Label map uint16 (H, W) from the annotation or the mask files of one image."""
    if entry.annotation is not None:
        file = entry.annotation.file
        try:
            drawn = entry.annotation.nuclei(shape, lambda *line: report(file, *line))
        except Unclear as error:
            report(file, "unclear annotation", f"{entry.image}: {error}", REFUSED)
            raise _Refused from None
        return _label_map(entry, drawn, shape, report)
    nuclei = []
    for name in sorted(entry.masks):
        try:
            data = read_bytes(read, name)
            pixels = read_pixels(data, name, mask=True)
        except UserError as error:
            report(name, "unreadable mask", _short(error, name), REFUSED)
            refused = _Refused()
            refused.passing = name if may_pass(error) else ""
            raise refused from None
        if pixels.lossy and _is_reversible(data):
            pixels.lossy = False
        size = pixels.values.shape[:2]
        if size != shape:
            message = f"mask {size[1]}x{size[0]} on an image {shape[1]}x{shape[0]} (width x height)"
            report(name, "wrong shape", message, REFUSED)
            raise _Refused
        try:
            found = nuclei_in(
                pixels, lambda *line, name=name: report(name, *line), alone=len(entry.masks) == 1
            )
        except Unclear as error:
            report(name, "unclear mask", str(error), REFUSED)
            raise _Refused from None
        if not found:
            report(name, "empty mask", "a mask without a pixel, dropped", REPAIRED)
        nuclei += [(name, *nucleus) for nucleus in found]
    return _label_map(entry, nuclei, shape, report)


def _label_map(entry, nuclei, shape, report):
    """The label map of nuclei (name, top, left, bool array); of equal ones the first is kept."""
    kept, seen = [], {}
    for name, top, left, piece in nuclei:
        key = (top, left, piece.shape, piece.tobytes())
        if key in seen:
            report(name, "duplicate mask", f"the same pixels as {seen[key]}, dropped", REPAIRED)
            continue
        seen[key] = name
        kept.append((name, top, left, piece))
    if len(kept) > MAX_NUCLEI:
        message = f"{len(kept)} nuclei; at most {MAX_NUCLEI} can be kept"
        report(entry.image, "too many masks", message, REFUSED)
        raise _Refused
    return _paint(kept, shape, entry.image, report)


def _paint(masks, shape, image_name, report):
    """Paint large nuclei first, so that in an overlap the smaller one keeps the pixel."""
    labels = np.zeros(shape, np.uint16)
    areas = [int(np.count_nonzero(piece)) for *_, piece in masks]
    for index in sorted(range(len(masks)), key=lambda i: (-areas[i], i)):
        _, top, left, piece = masks[index]
        labels[top : top + piece.shape[0], left : left + piece.shape[1]][piece] = index + 1
    visible = np.bincount(labels.ravel(), minlength=len(masks) + 1)[1:]
    hidden = sum(areas) - int(visible.sum())
    if hidden:
        report(
            image_name,
            "overlap",
            f"{pluralize(hidden, 'pixel')} in more than one mask: each goes to the smaller nucleus",
            REPAIRED,
        )
    if masks and not visible.all():
        for index in np.flatnonzero(visible == 0):
            report(
                masks[index][0], "covered mask", "wholly covered by other masks, dropped", REPAIRED
            )
        table = np.where(visible > 0, np.cumsum(visible > 0), 0)
        labels = np.concatenate([[0], table]).astype(np.uint16)[labels]
    return labels


def _is_reversible(data):
    """Whether the bytes are a TIFF whose pages are JPEG 2000 with the reversible transform, which keeps every value."""
    if not isinstance(data, bytes) or kind_of(data[:16]) != "tiff":
        return False
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        start = page.dataoffsets[0]
        head = data[start : start + 4096] if page.compression in JPEG_2000 else b""
    coding = head.find(
        b"\xff\x52"
    )  # the marker COD; its 14th byte is the transform, 1 the reversible one
    return coding > 0 and head[coding + 13 : coding + 14] == b"\x01"


def _short(error, name):
    text = str(error)
    return text[len(name) + 2 :] if text.startswith(name + ": ") else text
