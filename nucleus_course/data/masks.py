"""What a mask file shows: one nucleus, several, a label image, colours, transparency, or none of these.

BBBC038 has a file for each nucleus. People also bring one file with all nuclei, in the forms that
their tools write. Each is recognised by its values and read as what it is, with a line that says
so; what could mean two things is refused.
"""

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.data.lint import REPAIRED

SOLID = 0.3  # share of a value's pixels that lie in 2 x 2 blocks of it, from which on it is no soft edge
MOSTLY = 0.8  # share of the foreground that has solid values in a label image
PIECE = 0.25, 30  # of the largest piece, and pixels: from there on a piece is a nucleus of its own
AROUND = 0.5, 0.9  # share of the frame with one value, which then may be, or is, the background
INVERTED = 0.65  # share of the image, from which on a value on half of the frame is the background
COVERS = 0.9  # share of the image that no nucleus covers
HOLLOW = 0.35  # share of holes, from which on a piece is an outline
REGIONS = 1.5  # regions a value, above which values are classes and not nuclei


class Unclear(Exception):
    """A mask that cannot be read, or not in one way only."""


def nuclei_in(pixels, report):
    """The nuclei of a mask file.

    Args:
        pixels: :class:`~nucleus_course.data.files.Pixels`, read with ``mask``.
        report: called with (kind, message, action) for each line to say.

    Returns:
        A list of (top, left, bool array): the bounding box of each nucleus. Empty for an empty mask.

    Raises:
        Unclear: the reason.
    """
    plane = _plane(pixels, report)
    if pixels.lossy:
        plane = _without_jpeg_noise(plane)
    top, left, piece = crop(plane)
    if piece is None:
        return []
    if piece.dtype == np.uint8 and piece.size * 2 < plane.size:
        binary = np.count_nonzero(piece) == np.count_nonzero(piece == piece.max())
        if binary:  # nearly every mask of BBBC038: kept short
            return _pieces(piece > 0, top, left, report)
    plane = _background_zero(plane, report)
    values, counts = np.unique(plane, return_counts=True)
    values, counts = values[values != 0], counts[values != 0]
    if len(values) > 1:
        solid = _solid(plane, values, counts)
        if len(solid) > 1 or (len(values) > 16 and not len(solid)):
            return _labelled(plane, values, counts, solid, report)
        top = solid[0] if len(solid) else values.max()
        if counts[values > top].sum() > 0.05 * counts.sum():  # soft edges are fainter, not stronger
            raise Unclear("a class map, such as nuclei and their rims: use a label image")
        plane = plane > float(top) / 2
    top, left, piece = crop(plane)
    if piece is None:
        return []
    covered = np.count_nonzero(piece) / plane.size
    if covered > COVERS:
        raise Unclear(f"a mask that covers {100 * covered:.0f}% of the image: a nucleus does not")
    return _pieces(piece > 0, top, left, report)


def looks_like_labels(values):
    """Whether an image (H, W) is a label image (or a mask) rather than a picture: zero around, and
    each nucleus one small whole number. False for floats, colours and what has a single value."""
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.size == 0:
        return False
    if values.min() != 0 or np.count_nonzero(values[::4, ::4]) > 0.9 * values[::4, ::4].size:
        return False
    found, counts = np.unique(values, return_counts=True)
    found, counts = found[1:], counts[1:]
    if len(found) < 2 or int(found[-1]) > 10 * len(found) + 50:
        return False
    solid = _solid(values, found, counts)
    return len(solid) >= MOSTLY * len(found)


def crop(plane):
    """``(top, left, piece)``: the part of an array (H, W) that is not zero; piece is None for none."""
    import cv2

    mask = plane if plane.dtype == np.uint8 else (plane != 0).view(np.uint8)
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask))
    if width == 0:
        return 0, 0, None
    return top, left, plane[top : top + height, left : left + width]


def _plane(pixels, report):
    """One whole number a pixel, (H, W), 0 where transparent; colours are numbered."""
    values, alpha = pixels.values, pixels.alpha
    if values.ndim == 3:
        first = values[..., 0]
        if (values == first[..., None]).all():
            report("channels", f"a mask with {values.shape[2]} channels, all equal", REPAIRED)
            values = first
        else:
            report("channels", "a mask in colour: each colour is taken as a nucleus", REPAIRED)
            if values.dtype != np.uint8:
                raise Unclear(f"a mask in colour of {values.dtype}: save it as a label image")
            values = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Unclear("a mask with NaN or infinite values")
        if (values == np.rint(values)).all() and np.abs(values).max(initial=0) < 2**31:
            values = values.astype(np.int64)
    if values.dtype.kind not in "buif" or values.min(initial=0) < 0:
        raise Unclear("a mask with negative values")
    if alpha is not None and alpha.size and alpha.min() != alpha.max():
        shown = values[alpha > 0]
        if (shown == shown[0]).all():
            report("transparency", "a mask of one colour: what is not transparent counts", REPAIRED)
            return alpha
        values = np.where(alpha > 0, values, 0).astype(values.dtype)
    return values.view(np.uint8) if values.dtype == bool else values


def _without_jpeg_noise(plane):
    """Black and white of a JPEG, whose compression blurs values; label images do not survive it."""
    top = float(plane.max(initial=0))
    if plane.dtype != np.uint8 or np.count_nonzero((plane > 0.2 * top) & (plane < 0.8 * top)) > (
        0.2 * np.count_nonzero(plane > 0.5 * top)
    ):
        raise Unclear("a mask as JPEG, which changes values: save it as PNG or TIFF")
    return (plane > top / 2).astype(np.uint8)


def _background_zero(plane, report):
    """The mask with zeros around its nuclei, where another value was the background.

    Raises:
        Unclear: one value covers the image, or runs all around it and could be background or not.
    """
    frame = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    values, counts = np.unique(frame, return_counts=True)
    background, share = values[counts.argmax()], counts.max() / frame.size
    corners = np.count_nonzero(
        plane[:: len(plane) - 1 or 1, :: plane.shape[1] - 1 or 1] == background
    )
    if background == 0 or share < AROUND[0] or corners < 3:
        return plane  # nuclei at the edges, none of them all around
    rest = plane != background
    if not rest.any():
        raise Unclear("a mask that covers the whole image: a nucleus does not")
    covered = 1 - np.count_nonzero(rest) / rest.size
    several = bool((plane[rest] != 0).any())
    if several and not (plane == 0).any():
        sure = covered >= 0.25  # colours or numbers on white
    else:
        sure = covered >= (0.5 if share >= AROUND[1] else INVERTED)
    if not sure:
        if share < AROUND[1] and (several or covered < 0.5):
            return plane  # a field full of nuclei
        text = f"the value {background:g} along the edges of the image and on {100 * covered:.0f}% of it"
        raise Unclear(f"{text} could be background or a nucleus: save the mask with zeros around")
    report("inverted", "a mask whose background is not zero, read the other way round", REPAIRED)
    if not several:
        return rest.astype(np.uint8)
    return np.where(rest, plane, 0).astype(plane.dtype)


def _solid(plane, values, counts):
    """Those of the values that fill areas: soft edges and noise do not."""
    equal = plane[:-1, :-1] == plane[1:, :-1]
    equal &= plane[:-1, :-1] == plane[:-1, 1:]
    equal &= plane[:-1, :-1] == plane[1:, 1:]
    inside = np.zeros(plane.shape, bool)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            inside[rows, columns] |= equal
    found, blocks = np.unique(plane[inside & (plane != 0)], return_counts=True)
    share = blocks / counts[np.searchsorted(values, found)]
    return found[share >= SOLID]


def _labelled(plane, values, counts, solid, report):
    """The nuclei of a label image; raises where it is a class map, a picture or a probability map."""
    from scipy.ndimage import find_objects
    from skimage.measure import label

    kept = np.isin(values, solid)
    if counts[kept].sum() < MOSTLY * counts.sum():
        raise Unclear("neither a mask nor a label image: a picture or a map of probabilities?")
    numbers = np.zeros(len(values) + 1, np.int32)
    numbers[1:][kept] = np.arange(1, kept.sum() + 1)
    labels = np.where(plane == 0, 0, numbers[np.searchsorted(values, plane) + 1])
    regions, count = label(labels, background=0, connectivity=2, return_num=True)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    owner = np.zeros(count + 1, np.int64)
    owner[regions.ravel()] = labels.ravel()
    largest = np.zeros(len(solid) + 1, np.int64)
    np.maximum.at(largest, owner[1:], areas)
    parts = int((areas >= PIECE[0] * largest[owner[1:]]).sum())
    if parts > REGIONS * len(solid):
        raise Unclear(
            f"a class map: {len(solid)} values in {parts} separate regions do not tell nuclei "
            "apart; a label image has a number for each nucleus"
        )
    lost = int(counts[~kept].sum())
    soft = f"; {pluralize(lost, 'pixel')} of soft edges left out" if lost else ""
    report("label image", f"{len(solid)} nuclei in one label image{soft}", REPAIRED)
    return [
        (rows.start, columns.start, labels[rows, columns] == number)
        for number, (rows, columns) in enumerate(find_objects(labels), 1)
    ]


def _pieces(mask, top, left, report):
    """A mask of one value: one nucleus, or each separate piece where there are several."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count > 2:
        areas = stats[1:, cv2.CC_STAT_AREA]
        if (areas >= max(PIECE[0] * areas.max(), PIECE[1])).sum() > 1:
            _refuse_outlines(mask)
            text = f"{count - 1} separate pieces in one mask: each is taken as a nucleus"
            report("several pieces", f"{text}; nuclei that touch become one", REPAIRED)
            boxes = stats[1:, :4].tolist()
            return [
                (top + y, left + x, labels[y : y + height, x : x + width] == number)
                for number, (x, y, width, height) in enumerate(boxes, 1)
            ]
    return [(top, left, mask)]


def _refuse_outlines(mask):
    """Raise where much of what a mask (H, W) of several pieces encloses are holes: outlines, to be filled first."""
    import cv2

    outside = np.pad(~mask, 1, constant_values=True).view(np.uint8)
    _, regions = cv2.connectedComponents(outside, connectivity=4)
    around = regions == regions[0, 0]
    holes = np.count_nonzero(outside) - np.count_nonzero(around)
    if holes > HOLLOW * (holes + np.count_nonzero(mask)):
        raise Unclear("outlines rather than nuclei: fill them, or save a label image")
