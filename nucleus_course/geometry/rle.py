"""Run-length encoded masks, many at a time.

COCO's RLE counts runs of 0 and 1 alternately down the columns of a mask, starting with zeros; the compressed
form writes each count as the difference to the count two places before, in base 32. ``pycocotools`` codes one mask at
a time. A label image holds hundreds of nuclei, so here all masks of an image are coded at once with NumPy.
"""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from nucleus_course.geometry.masks import ranges


@dataclass(frozen=True)
class Runs:
    """The foreground runs of N masks of one size, in column-major order of pixels.

    Attributes:
        mask: (R,) int, the mask of each run, 0..N-1, rising.
        start: (R,) int, position of the run's first pixel, ``column * height + row``.
        length: (R,) int, pixels.
        areas: (N,) int64, pixels of each mask.
    """

    mask: np.ndarray
    start: np.ndarray
    length: np.ndarray
    areas: np.ndarray

    def pixels(self):
        """Every foreground pixel: (mask index (P,), column-major position (P,)), both int64."""
        mask = np.repeat(self.mask, self.length).astype(np.int64, copy=False)
        return mask, ranges(self.start, self.length)


def rle_from_labels(labels):
    """The masks of a label image as compressed RLE.

    Args:
        labels: (H, W) integers, 0 is background.

    Returns:
        (ids, rles): the labels present, (n,) int64, rising; a list of n dicts ``{"size": [H, W], "counts": str}``.

    Raises:
        ValueError: ``labels`` is not a 2-D array of non-negative integers.

    >>> ids, rles = rle_from_labels(np.array([[0, 7], [3, 7]]))
    >>> ids, rles[1]
    (array([3, 7]), {'size': [2, 2], 'counts': '22'})
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"a label image is a 2-D array of integers, not {labels.ndim}-D {labels.dtype}"
        )
    height, width = labels.shape
    flat = labels.T.ravel()  # column-major
    if flat.size == 0:
        return np.zeros(0, np.int64), []
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    owner = flat[starts].astype(np.int64)
    if owner.min() < 0:
        raise ValueError("a label image has no negative labels")
    order = np.flatnonzero(owner)
    order = order[np.argsort(owner[order], kind="stable")]  # by label, each label's runs in order
    ids, mask = np.unique(owner[order], return_inverse=True)
    areas = np.bincount(mask, lengths[order], ids.size).astype(np.int64)
    return ids, rles_from_runs(Runs(mask, starts[order], lengths[order], areas), height, width)


def compress(rles):
    """RLE dicts with a list of counts, as compressed RLE dicts with ``counts`` a str."""
    coded = [coco_mask.frPyObjects(r, *r["size"]) for r in rles]
    return [
        {"size": [int(n) for n in r["size"]], "counts": r["counts"].decode("ascii")} for r in coded
    ]


def runs_from_rles(rles, height, width):
    """Decode compressed RLEs of one size.

    Args:
        rles: N dicts ``{"size": [H, W], "counts": str or bytes}``.

    Returns:
        :class:`Runs`.

    Raises:
        ValueError: naming the first mask that has another size, counts that are not COCO's compressed
            form, or runs that do not add up to ``height * width``.

    >>> runs = runs_from_rles([{"size": [2, 3], "counts": "132"}], 2, 3)
    >>> runs.start, runs.length, runs.pixels()[1]
    (array([1], dtype=int32), array([3], dtype=int32), array([1, 2, 3]))
    """
    texts = []
    for i, rle in enumerate(rles):
        if list(rle["size"]) != [height, width]:
            raise ValueError(
                f"mask {i} has the size {tuple(rle['size'])}, its image is {(height, width)}"
            )
        counts = rle["counts"]
        texts.append(counts if isinstance(counts, bytes) else counts.encode("utf-8"))
    masks = len(texts)
    sizes = np.array([len(t) for t in texts], np.int64)
    if masks and sizes.min() == 0:
        raise ValueError(f"mask {int(np.argmin(sizes))} has empty counts")
    codes = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        none = np.zeros(0, np.int64)
        return Runs(none, none, none, np.zeros(masks, np.int64))
    text_of = np.repeat(np.arange(masks), sizes)
    wrong = (codes < 0) | (codes > 63)
    last = (codes & 0x20) == 0  # the sixth bit says that more of the number follows
    wrong[np.cumsum(sizes) - 1] |= ~last[np.cumsum(sizes) - 1]
    if wrong.any():
        raise ValueError(f"mask {text_of[np.argmax(wrong)]} is not compressed RLE")

    # Numbers are groups of five bits, lowest first; the fifth bit of the last group is the sign.
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - begins + 1
    if digits.max() > 10:
        raise ValueError(f"mask {text_of[ends[np.argmax(digits)]]} is not compressed RLE")
    place = np.arange(codes.size) - np.repeat(begins, digits)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * place), begins)
    numbers -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * digits), 0)

    mask = text_of[ends]
    runs = np.bincount(mask, minlength=masks)
    first = np.cumsum(runs) - runs
    index = np.arange(numbers.size) - first[mask]
    # From the fourth count on, each is the difference to the one two places before: sum along 0 | 1, 3, 5 ... | 2, 4, 6 ...
    chain = 3 * mask + np.where(index == 0, 0, 1 + (index + 1) % 2)
    order = np.argsort(chain, kind="stable")
    counts = np.empty_like(numbers)
    counts[order] = _sums_within(numbers[order], chain[order])
    if counts.min() < 0:
        raise ValueError(f"mask {mask[np.argmin(counts)]} has a run of negative length")
    covered = np.add.reduceat(counts, first)
    if (covered != height * width).any():
        i = int(np.argmax(covered != height * width))
        raise ValueError(f"mask {i} covers {covered[i]} pixels, its image has {height * width}")
    start = _sums_within(counts, mask) - counts
    keep = (index % 2 == 1) & (counts > 0)
    areas = np.bincount(mask[keep], weights=counts[keep], minlength=masks).astype(np.int64)
    kind = np.int32 if height * width < 2**31 else np.int64
    return Runs(*(column[keep].astype(kind) for column in (mask, start, counts)), areas)


def runs_from_pixels(mask, position, masks):
    """:class:`Runs` of masks that are given pixel by pixel.

    Args:
        mask: (P,) int, the mask of each pixel, rising.
        position: (P,) int, ``column * height + row``, rising within a mask.
        masks: number of masks; those without pixels are empty.

    >>> runs_from_pixels(np.array([0, 0, 2]), np.array([4, 5, 0]), 3).areas
    array([2, 0, 1])
    """
    new = np.ones(position.size, bool)
    new[1:] = (np.diff(position) != 1) | (np.diff(mask) != 0)
    first = np.flatnonzero(new)
    length = np.diff(np.append(first, position.size))
    areas = np.bincount(mask, minlength=masks).astype(np.int64)
    return Runs(mask[first], position[first], length, areas)


def rles_from_runs(runs, height, width):
    """The masks of :class:`Runs` as compressed RLEs: a list of N dicts ``{"size": [H, W], "counts": str}``."""
    rles = []
    bounds = np.searchsorted(runs.mask, np.arange(runs.areas.size + 1))
    for begin, end in zip(bounds[:-1], bounds[1:]):
        start = runs.start[begin:end].astype(np.int64)
        # Differences between the edges of the runs: gap, run, gap, run, ..., rest.
        edges = np.stack([start, start + runs.length[begin:end]], axis=1).ravel()
        total = height * width
        rest = [] if edges.size and edges[-1] == total else [total]  # no last run of 0 zeros
        counts = np.diff(np.concatenate([[0], edges, rest]).astype(np.int64))
        rles.append({"size": [height, width], "counts": counts.tolist()})
    return compress(rles)


def _sums_within(values, group):
    """Cumulative sums that restart where ``group`` changes."""
    sums = np.cumsum(values)
    starts = np.concatenate([[True], group[1:] != group[:-1]])
    before = (sums - values)[starts]
    return sums - before[np.cumsum(starts) - 1]


def resolve_overlaps(runs, scores, height, width):
    """One label image from masks that may overlap: the higher score keeps the pixel.

    Args:
        runs: the :class:`Runs` of N masks.
        scores: (N,) floats. Between equal scores the earlier mask keeps the pixel.

    Returns:
        (H, W) int32: mask i is label i + 1, unless it lost every pixel.

    >>> rles = [rle_from_labels([mask])[1][0] for mask in ([0, 1, 1], [1, 1, 0])]
    >>> resolve_overlaps(runs_from_rles(rles, 1, 3), [0.4, 0.8], 1, 3)
    array([[2, 2, 1]], dtype=int32)
    """
    flat = np.zeros(height * width, np.int32)
    rank = np.empty(runs.areas.size, np.int64)
    by_score = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    rank[by_score] = np.arange(rank.size)
    # Lowest score first, so that the highest is painted last.
    order = np.argsort(-rank[runs.mask], kind="stable")
    ordered = Runs(runs.mask[order], runs.start[order], runs.length[order], runs.areas)
    mask, position = ordered.pixels()
    flat[position] = mask + 1
    return np.ascontiguousarray(flat.reshape(width, height).T)


def boxes_from_rles(rles):
    """Tight boxes of N masks: (N, 4) float32 (y1, x1, y2, x2) in pixels; an empty mask has (0, 0, 0, 0)."""
    if not rles:
        return np.zeros((0, 4), np.float32)
    x, y, w, h = coco_mask.toBbox(rles).reshape(-1, 4).T
    return np.stack([y, x, y + h, x + w], axis=1).astype(np.float32)
