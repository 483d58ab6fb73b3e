"""What a mask file shows: one nucleus, several, a label image, colours, transparency, or none of these.

BBBC038 has a file for each nucleus. Other tools write one file with all nuclei, in several forms. Each is
recognised by its values and reported in a line; ambiguous files are refused.
"""

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.data.lint import NOTED, REPAIRED

SOLID = 0.3  # share of a value's pixels in uniform 2 x 2 blocks from which it is not a soft edge
MOSTLY = 0.8  # least share of the foreground with solid values in a label image
PIECE = 0.25, 30  # share of the largest piece, and pixels, from which a piece is a nucleus
AROUND = 0.5, 0.9  # shares of the frame from which its value may be, or must be, the background
INVERTED = 0.65  # a value on half of the frame and on this share of the image is background
COVERS = 0.9  # largest share of the image that a nucleus may cover
THIN = 3  # least pixels of a thin nucleus in a label image
HOLLOW = 0.35  # share of holes from which a piece is an outline
REGIONS = 1.5  # with more regions per value, the values are classes, not nuclei


class Unclear(Exception):
    """A mask that cannot be read, or is ambiguous."""


def nuclei_in(pixels, report, alone=False):
    """The nuclei of a mask file.

    Args:
        pixels: :class:`~nucleus_course.data.files.Pixels`, read with ``mask``.
        report: called with (kind, message, action) for each issue.
        alone: whether it is the image's only mask file, so that it holds all nuclei, small ones too.

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
        if binary:  # a short cut for nearly every mask of BBBC038
            return _pieces(piece > 0, top, left, report, alone)
    plane = _background_zero(plane, report)
    values, counts = np.unique(plane, return_counts=True)
    values, counts = values[values != 0], counts[values != 0]
    if len(values) > 1:
        solid = _solid(plane, values, counts)
        if len(solid) or len(values) <= 16:
            solid = np.union1d(solid, _apart(plane, values, counts))
        if len(solid) > 1 or (len(values) > 16 and not len(solid)):
            return _labelled(plane, values, counts, solid, report)
        top = solid[0] if len(solid) else values.max()
        if counts[values > top].sum() > 0.05 * counts.sum():  # soft edges have lower values
            raise Unclear("a class map, such as nuclei and their rims: use a label image")
        plane = _upper_half(plane, float(top), report)
    top, left, piece = crop(plane)
    if piece is None:
        return []
    covered = np.count_nonzero(piece) / plane.size
    if covered > COVERS:
        raise Unclear(f"a mask that covers {100 * covered:.0f}% of the image: a nucleus does not")
    return _pieces(piece > 0, top, left, report, alone)


def looks_like_labels(values):
    """Whether an image (H, W) is a label image rather than a picture: zero in the background, and each
    nucleus one small whole number. False for floats, colours and a single value."""
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
    """``(top, left, piece)``: the bounding box of what is not zero in an array (H, W); piece is None if all is zero."""
    import cv2

    mask = plane if plane.dtype == np.uint8 else (plane != 0).view(np.uint8)
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask))
    if width == 0:
        return 0, 0, None
    return top, left, plane[top : top + height, left : left + width]


def _plane(pixels, report):
    """One number per pixel, (H, W), 0 where transparent; each colour becomes a number."""
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
    """A black-and-white mask from a JPEG, whose compression blurs values; label images are refused."""
    top = float(plane.max(initial=0))
    if plane.dtype != np.uint8 or np.count_nonzero((plane > 0.2 * top) & (plane < 0.8 * top)) > (
        0.2 * np.count_nonzero(plane > 0.5 * top)
    ):
        raise Unclear("a mask as JPEG, which changes values: save it as PNG or TIFF")
    return (plane > top / 2).astype(np.uint8)


def _background_zero(plane, report):
    """The mask with a background of zeros, even if it had another value.

    Raises:
        Unclear: one value covers the image, or surrounds it and may or may not be background.
    """
    frame = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    values, counts = np.unique(frame, return_counts=True)
    background, share = values[counts.argmax()], counts.max() / frame.size
    corners = np.count_nonzero(
        plane[:: len(plane) - 1 or 1, :: plane.shape[1] - 1 or 1] == background
    )
    if background == 0 or share < AROUND[0] or corners < 3:
        return plane  # other values at the edges are nuclei
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
    """The values that fill areas, unlike those of soft edges and noise."""
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


def _apart(plane, values, counts):
    """The values of thin nuclei in a label image: each fills one region that touches no other value."""
    import cv2

    filled = np.ascontiguousarray(plane != 0)
    _, regions, stats, _ = cv2.connectedComponentsWithStats(filled.view(np.uint8), connectivity=8)
    areas, regions, shown = stats[:, cv2.CC_STAT_AREA], regions[filled], plane[filled]
    value = np.zeros(len(areas), plane.dtype)
    value[regions] = shown
    pure = areas >= THIN
    pure[0] = False  # the background
    pure[regions[shown != value[regions]]] = False
    value, areas = value[pure], areas[pure]
    return value[areas == counts[np.searchsorted(values, value)]]


def _upper_half(plane, top, report):
    """The mask (H, W) of what exceeds half of ``top``; separate pieces that vanish are reported."""
    import cv2

    mask = plane > top / 2
    filled = np.ascontiguousarray(plane != 0)
    count, regions = cv2.connectedComponents(filled.view(np.uint8), connectivity=8)
    lost = count - len(np.union1d(regions[mask], [0]))
    if lost:
        text = (
            f"{pluralize(lost, 'separate piece')} left out, with values of at most half of {top:g}"
        )
        report("faint pieces", f"{text}; give all nuclei one value, or each its own", REPAIRED)
    return mask


def _labelled(plane, values, counts, solid, report):
    """The nuclei of a label image; raises Unclear for a class map, a picture or a probability map."""
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


def _pieces(mask, top, left, report, alone):
    """The nuclei of a mask with one value: one, or each separate piece."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
    share = PIECE[0] * areas[-1]
    further = int((areas[:-1] >= PIECE[1]).sum())
    if alone:  # nuclei of any size, but no specks
        several = bool((areas[:-1] >= min(share, PIECE[1])).any())
    else:
        several = further > 1 or bool((areas[:-1] >= max(share, PIECE[1])).any())
    if several:
        _refuse_outlines(mask)
        text = f"{count - 1} separate pieces in one mask: each is taken as a nucleus"
        report("several pieces", f"{text}; nuclei that touch become one", REPAIRED)
        boxes = stats[1:, :4].tolist()
        return [
            (top + y, left + x, labels[y : y + height, x : x + width] == number)
            for number, (x, y, width, height) in enumerate(boxes, 1)
        ]
    if further:
        text = f"pieces of {areas[-1]} and {areas[-2]} pixels in one mask: taken as one nucleus"
        report("pieces of one", f"{text}; for two, save a mask for each", NOTED)
    return [(top, left, mask)]


def _refuse_outlines(mask):
    """Raise Unclear if large holes show that a mask (H, W) of several pieces holds outlines, not nuclei."""
    import cv2

    outside = np.pad(~mask, 1, constant_values=True).view(np.uint8)
    _, regions = cv2.connectedComponents(outside, connectivity=4)
    around = regions == regions[0, 0]
    holes = np.count_nonzero(outside) - np.count_nonzero(around)
    if holes > HOLLOW * (holes + np.count_nonzero(mask)):
        raise Unclear("outlines rather than nuclei: fill them, or save a label image")
