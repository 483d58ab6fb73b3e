"""Annotated shapes as pixels: polygons, ellipses, run lengths and small masks.

Coordinates are (x, y) in pixels from the image's upper left corner, which is (0, 0); the first pixel's centre is
(0.5, 0.5), as in Fiji, QuPath and LabelMe. A pixel belongs to an outline that contains its centre. COCO's polygons are
drawn by pycocotools, which defines their pixels.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.data.lint import NOTED, REPAIRED
from nucleus_course.data.masks import Unclear
from nucleus_course.geometry.rle import compress, runs_from_rles

ELLIPSE_POINTS = 180
SIZES = "the image has {} x {} pixels, the annotation was made for {} x {} (width x height)"


@dataclass(frozen=True)
class Shape:
    """One annotated nucleus.

    Attributes:
        name: for messages.
        draw: (height, width) -> (top, left, bool array), the pixels within the image; raises ValueError.
        box: its bounds (x1, y1, x2, y2); None if it cannot leave the image.
        category: of the annotation, or "".
    """

    name: str
    draw: Callable
    box: tuple | None = None
    category: str = ""


@dataclass
class Annotation:
    """The nuclei that a file annotates in one image.

    Attributes:
        file: the annotation file.
        size: (height, width) of the image as the file states it, or None.
        shapes: list of :class:`Shape`.
        dropped: {reason: names} of shapes that are no outline of a nucleus.
        left_out: number of shapes of other categories than nuclei.
        notes: (kind, message) of choices that were made.
        refused: why it cannot be used, or "".
    """

    file: str
    size: tuple | None = None
    shapes: list = field(default_factory=list)
    dropped: dict = field(default_factory=dict)
    left_out: int = 0
    notes: list = field(default_factory=list)
    refused: str = ""

    @property
    def empty(self):
        """Whether the file lists the image without any shape."""
        return not (self.shapes or self.dropped or self.left_out or self.refused)

    def drop(self, reason, name):
        self.dropped.setdefault(reason, []).append(name)

    def nuclei(self, shape, report):
        """The nuclei within an image of ``shape``: a list of (name, top, left, bool array).

        ``report`` is called with (kind, message, action) for each issue. Raises
        :class:`~nucleus_course.data.masks.Unclear` if the annotation is not this image's.
        """
        height, width = shape
        if self.refused:
            raise Unclear(self.refused)
        if self.size is not None and tuple(self.size) != tuple(shape):
            raise Unclear(SIZES.format(width, height, self.size[1], self.size[0]))
        dropped, found, beyond = dict(self.dropped), [], 0
        for one in self.shapes:
            if one.box is not None:
                x1, y1, x2, y2 = one.box
                if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
                    raise Unclear(
                        f"{one.name} lies outside the image of {width} x {height} pixels: is this the "
                        "annotation of another image? Correct or delete it"
                    )
                beyond += x1 < -0.5 or y1 < -0.5 or x2 > width + 0.5 or y2 > height + 0.5
            try:
                top, left, piece = one.draw(shape)
            except (ValueError, TypeError, OverflowError, IndexError, KeyError) as error:
                raise Unclear(f"{one.name}: {error}") from None
            if piece is None or not piece.any():
                dropped.setdefault("without a pixel", []).append(one.name)
            else:
                found.append((one.name, top, left, piece))
        if self.dropped and not found:
            raise Unclear(_nothing_left(dropped))
        for kind, text in self.notes:
            report(kind, text, NOTED)
        for reason, names in dropped.items():
            text = f"{pluralize(len(names), 'shape')} {reason}, dropped ({_few(names)})"
            report("not a nucleus", text, REPAIRED)
        if beyond:
            text = f"{pluralize(beyond, 'outline')} cut at the image's edge"
            report("beyond the edge", text, REPAIRED)
        return found


def _few(names):
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _nothing_left(dropped):
    """Why an image is left out of whose shapes none is the outline of a nucleus."""
    kinds = "; ".join(f"{len(names)} {reason}: {_few(names)}" for reason, names in dropped.items())
    shapes = pluralize(sum(map(len, dropped.values())), "shape")
    return (
        f"no nuclei are annotated that can be read, no outline among {shapes} ({kinds}): outline the nuclei, "
        "or delete the shapes if the image shows none"
    )


def polygon(name, rings, category=""):
    """A :class:`Shape` of one or several rings (K, 2) of (x, y); pixels inside an even number of them are holes."""
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    points = np.concatenate(rings)
    if not np.isfinite(points).all() or np.abs(points).max() > 1e7:
        raise ValueError("coordinates outside any image")
    box = (*points.min(axis=0), *points.max(axis=0))
    return Shape(name, lambda shape: fill(rings, shape), box, category)


def ellipse(name, centre, radii, angle=0.0, category=""):
    """A :class:`Shape`: centre (x, y), radii along its own axes, angle in radians from x towards y."""
    turn = np.arange(ELLIPSE_POINTS) * (2 * np.pi / ELLIPSE_POINTS)
    # Enlarged so that the polygon's area equals the ellipse's.
    grow = np.sqrt(2 * np.pi / ELLIPSE_POINTS / np.sin(2 * np.pi / ELLIPSE_POINTS))
    x, y = np.cos(turn) * radii[0] * grow, np.sin(turn) * radii[1] * grow
    ring = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)])
    return polygon(name, [ring.T + np.asarray(centre, np.float64)], category)


def rectangle(name, x1, y1, x2, y2, category=""):
    """A :class:`Shape` from two opposite corners."""
    return polygon(name, [[(x1, y1), (x2, y1), (x2, y2), (x1, y2)]], category)


def mask(name, left, top, piece, category=""):
    """A :class:`Shape` from a bool array whose first pixel is at (top, left), whole pixels."""
    height, width = piece.shape

    def draw(shape):
        y, x = max(0, -top), max(0, -left)
        return top + y, left + x, piece[y : shape[0] - top, x : shape[1] - left]

    return Shape(name, draw, (left, top, left + width, top + height), category)


def coco_segmentation(name, segmentation, category=""):
    """A :class:`Shape` of COCO's polygons [[x1, y1, x2, y2, …], …] or run lengths {"size", "counts"}.

    Raises ValueError for anything else.
    """
    if isinstance(segmentation, dict):
        return Shape(name, lambda shape: _from_rle(segmentation, shape), None, category)
    whole = isinstance(segmentation, list) and all(
        isinstance(r, list) and len(r) % 2 == 0 for r in segmentation
    )
    if not whole:
        raise ValueError("neither polygons nor run lengths")
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        raise ValueError("fewer than three points")
    box = polygon(name, rings).box
    return Shape(name, lambda shape: _by_pycocotools(rings, shape), box, category)


def _by_pycocotools(rings, shape):
    """Polygons as pycocotools draws them."""
    from pycocotools import mask as coco

    rle = coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in rings], *shape))
    return _from_rle({"size": list(shape), "counts": rle["counts"].decode("ascii")}, shape)


def _from_rle(segmentation, shape):
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, (str, list)):
        raise ValueError("run lengths need a size of two numbers, and counts")
    size = _whole(size)
    if size != list(shape):
        raise ValueError(SIZES.format(*shape[::-1], *size[::-1]))
    if isinstance(counts, list):
        counts = _whole(counts)
        if sum(counts) != shape[0] * shape[1]:
            raise ValueError(f"its runs cover {sum(counts)} pixels, not {shape[0] * shape[1]}")
        counts = compress([{"size": size, "counts": counts}])[0]["counts"]
    _, position = runs_from_rles([{"size": size, "counts": counts}], *shape).pixels()
    columns, rows = np.divmod(position, shape[0])
    if not len(rows):
        return 0, 0, None
    top, left = int(rows.min()), int(columns.min())
    piece = np.zeros((int(rows.max()) + 1 - top, int(columns.max()) + 1 - left), bool)
    piece[rows - top, columns - left] = True
    return top, left, piece


def _whole(numbers):
    """A list of whole numbers; raises ValueError for anything else."""
    for n in numbers:
        if isinstance(n, bool) or not isinstance(n, (int, float)) or n < 0 or n % 1:
            raise ValueError(f"run lengths are whole numbers, not {n!r}")
    return [int(n) for n in numbers]


def window(box, shape):
    """The whole pixels of an image that a box (x1, y1, x2, y2) touches: left, top, right, bottom."""
    low = np.floor(np.array(box[:2])).astype(int)
    high = np.ceil(np.array(box[2:])).astype(int)
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, shape[::-1])
    return int(left), int(top), int(right), int(bottom)


def fill(rings, shape):
    """The pixels of an image whose centres lie in an odd number of rings.

    Args:
        rings: list of (K, 2) float, corners (x, y).
        shape: height and width.

    Returns:
        (top, left, bool array); the array is None outside the image. Polygons that share an edge share no pixel.

    >>> fill([np.array([(1, 1), (4, 1), (4, 3), (1, 3)])], (9, 9))
    (1, 1, array([[ True,  True,  True],
           [ True,  True,  True]]))
    """
    points = np.concatenate(rings)
    left, top, right, bottom = window((*points.min(axis=0), *points.max(axis=0)), shape)
    if right <= left or bottom <= top:
        return 0, 0, None
    centres = np.arange(top, bottom) + 0.5
    turns = np.zeros((bottom - top, right - left + 1), np.int32)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0)):
            if y1 == y2:
                continue
            if y1 > y2:  # the same direction for both neighbours of an edge, so that they agree
                x1, y1, x2, y2 = x2, y2, x1, y1
            rows = slice(*np.searchsorted(centres, (y1, y2)))  # y1 <= centre < y2
            crossing = x1 + (centres[rows] - y1) * ((x2 - x1) / (y2 - y1))
            # From the first pixel whose centre is to the right of the edge.
            column = np.clip(np.ceil(crossing - 0.5).astype(int) - left, 0, right - left)
            turns[np.arange(bottom - top)[rows], column] += 1
    return top, left, (np.cumsum(turns[:, :-1], axis=1) % 2).astype(bool)


def nuclei_first(annotations, wanted=()):
    """Keep the categories that are nuclei, in place; returns a line about what was kept, or "".

    Args:
        annotations: an iterable of :class:`Annotation`.
        wanted: names of categories to keep. By default those with "nuc" in their names, or all if there are
            none.

    Raises:
        ValueError: no shape has a wanted category.
    """
    annotations = list(annotations)
    counts = Counter(one.category for found in annotations for one in found.shapes)
    kept = {name for name in counts if name.casefold() in {w.casefold() for w in wanted}}
    if wanted and not kept:
        has = ", ".join(map(repr, counts)) or "none"
        raise ValueError(f"nothing is called {' or '.join(wanted)}; the categories are {has}")
    if not wanted:
        kept = {name for name in counts if "nuc" in name.casefold()} or set(counts)
    for found in annotations:
        before = len(found.shapes)
        found.shapes = [one for one in found.shapes if one.category in kept]
        found.left_out = before - len(found.shapes)

    def listed(names):
        return ", ".join(f"{counts[n]} {n or 'unnamed'}" for n in sorted(names))

    if kept == set(counts):
        return f"all categories are taken for nuclei: {listed(kept)}" if len(counts) > 1 else ""
    return f"taken for nuclei: {listed(kept)}; left out: {listed(set(counts) - kept)}"
