"""From the files of one image to its pixels and its label map, with everything odd reported.

Repairs (the image is used): empty masks and exact duplicates are dropped, masks with several
channels are flattened, overlapping pixels go to the smaller nucleus (so that a small nucleus on a
large one survives) and the overlap is counted. Refusals (the image is left out, since its truth
would be incomplete): an unreadable image or mask, a mask of another shape, several images in one place.
"""

from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.image_types import image_type
from nucleus_course.data.lint import NOTED, REFUSED, REPAIRED, Issue
from nucleus_course.data.read import is_grey, read_image, to_rgb8

MAX_MASKS = 65535  # the cache stores uint16 label maps


@dataclass
class Decoded:
    """One image: ``image`` uint8 (H, W) if grey or (H, W, 3), ``labels`` uint16 (H, W), or None and
    the issue that says why. Ids 1..n follow the sorted names of the mask files."""

    image_id: str
    image: np.ndarray = None
    labels: np.ndarray = None
    type: str = ""
    issues: list = field(default_factory=list)

    @property
    def usable(self):
        return self.image is not None


def decode_entry(entry, read, labelled=True):
    """Decode one :class:`~nucleus_course.data.bbbc038.ImageFiles`; never raises for bad content.

    ``read(name)`` gives the bytes of a file. ``labelled`` is False for a source without any masks
    (such as stage1_test): then an image without masks is nothing to report.
    """
    result = Decoded(entry.image_id)

    def report(file, kind, message, action):
        result.issues.append(Issue(entry.image_id, file, kind, message, action))

    if entry.rivals:
        message = f"{entry.rivals} images lie together, none called {entry.image_id!r}: each needs a folder of its own, <id>/images/<id>.png"
        report(entry.image, "several images", message, REFUSED)
        return result
    if labelled and not entry.masks:
        if not entry.has_mask_folder:
            report(
                entry.image,
                "no masks",
                "an image without a masks folder: its nuclei are unknown",
                REFUSED,
            )
            return result
        report(
            entry.image,
            "no masks",
            "an empty masks folder: taken as an image without nuclei",
            NOTED,
        )
    if len(entry.masks) > MAX_MASKS:
        report(
            entry.image,
            "too many masks",
            f"{len(entry.masks)} masks; at most {MAX_MASKS} can be kept",
            REFUSED,
        )
        return result
    try:
        image = to_rgb8(read_image(read_bytes(read, entry.image), entry.image))
    except UserError as error:
        report(entry.image, "unreadable image", _short(error, entry.image), REFUSED)
        return result
    try:
        labels = _labels(entry, read, image.shape[:2], report)
    except _Refused:
        return result
    result.type = image_type(image)
    result.image = np.ascontiguousarray(image[..., 0]) if is_grey(image) else image
    result.labels = labels
    return result


def read_bytes(read, name):
    """``read(name)`` with the many ways in which archives and disks fail turned into UserError."""
    try:
        return read(name)
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, RuntimeError (password) ...
        raise UserError(f"{name}: cannot be read ({error})") from None


class _Refused(Exception):
    """A mask that makes the image's truth incomplete; already reported."""


def _labels(entry, read, shape, report):
    """Label map uint16 (H, W) from the mask files of one image."""
    masks, seen = [], {}
    for name in sorted(entry.masks):
        try:
            mask = read_image(read_bytes(read, name), name, mask=True)
        except UserError as error:
            report(name, "unreadable mask", _short(error, name), REFUSED)
            raise _Refused from None
        if mask.shape[:2] != shape:
            report(
                name,
                "wrong shape",
                f"mask {mask.shape[1]}x{mask.shape[0]} on an image {shape[1]}x{shape[0]} (width x height)",
                REFUSED,
            )
            raise _Refused
        if mask.ndim == 3:
            report(
                name,
                "channels",
                f"a mask with {mask.shape[2]} channels: any channel counts, alpha does not",
                REPAIRED,
            )
            mask = mask[..., : 3 if mask.shape[2] >= 3 else 1].max(axis=2)
        top, left, piece = crop_to_content(mask)
        if piece is None:
            report(name, "empty mask", "a mask without a pixel, dropped", REPAIRED)
            continue
        key = (top, left, piece.shape, piece.tobytes())
        if key in seen:
            report(name, "duplicate mask", f"the same pixels as {seen[key]}, dropped", REPAIRED)
            continue
        seen[key] = name
        masks.append((name, top, left, piece))
    return _paint(masks, shape, entry.image, report)


def crop_to_content(mask):
    """``(top, left, piece)``: the bounding box of a mask's foreground, bool, or None for no pixel.

    Foreground is what lies above half of the mask's own maximum, so that 0/1, 0/255 and 16-bit
    masks, and masks with soft edges, mean what they show.
    """
    import cv2

    if mask.dtype not in (np.uint8, bool):
        mask = (
            (mask > float(mask.max()) / 2).view(np.uint8)
            if mask.size and mask.max() > 0
            else np.zeros(mask.shape, np.uint8)
        )
    mask = np.ascontiguousarray(mask).view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return 0, 0, None
    piece = mask[top : top + height, left : left + width]
    strong = piece > int(piece.max()) // 2
    if strong[[0, -1]].any(axis=1).all() and strong[:, [0, -1]].any(axis=0).all():
        return top, left, strong
    rows, cols = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    strong = strong[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return top + int(rows[0]), left + int(cols[0]), strong


def _paint(masks, shape, image_name, report):
    """Paint large nuclei first, so that where two overlap the smaller keeps the pixel."""
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


def _short(error, name):
    text = str(error)
    return text[len(name) + 2 :] if text.startswith(name + ": ") else text
