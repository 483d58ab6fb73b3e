"""Detections on one image, at the image's own size, with their masks in several forms."""

from dataclasses import dataclass, field

import numpy as np

from nucleus_course.config import Thresholds
from nucleus_course.geometry.masks import paste, ranges
from nucleus_course.prediction.rescorer import outline_quality

AT_ONCE = 2000  # detections whose pixels are held at once


class Found:
    """What the two kinds of detections share; see :class:`Detections`."""

    def __len__(self):
        return len(self.scores)

    def __repr__(self):
        above = int((self.scores >= self.thresholds.score).sum())
        scale = getattr(self, "scale", 1)  # a U-Net looks at images as they are
        seen = "" if scale == 1 else f" at {scale:.3g} times its size"
        return (
            f"{type(self).__name__}({len(self)} on {self.height}x{self.width}{seen}, "
            f"{above} with a score of at least {self.thresholds.score:g})"
        )

    def _repr_html_(self):
        """Shown by a notebook cell: the outlines on the image, or without one the labels in colour."""
        from nucleus_course.prediction.picture import detections_html

        return detections_html(self)

    @property
    def novelty(self):
        """How far the image is from what the model learned: at 1 or more, do not trust results. None if unknown."""
        known = self.canonical is not None and self.learned is not None
        return self.learned(self.canonical.image) if known else None

    def label_image(self, score_threshold=None, min_area=None):
        """One int32 label image (H, W): 0 background, i + 1 for detection i of :meth:`confident`.

        Where masks overlap, the higher score keeps the pixel. Detections left with fewer than ``min_area``
        pixels are removed, and the labels are renumbered without gaps.
        """
        return self.labelled(score_threshold, min_area)[0]

    def labels_and_scores(self, score_threshold=None, min_area=None):
        """:meth:`label_image`, and the score of each label: (n,) float32, that of label i + 1 at i."""
        labels, nuclei = self.labelled(score_threshold, min_area)
        return labels, nuclei.scores


@dataclass(repr=False)
class Detections(Found):
    """What a model found on one image, best first.

    Attributes:
        boxes: (N, 4) float32 (y1, x1, y2, x2), image pixels.
        scores: (N,) float32 in [0, 1], in falling order.
        mask_probs: (N, S, S) float32, probability of nucleus in each cell of ``mask_boxes``.
        mask_boxes: (N, 4) float32, the boxes that the mask grids cover (dilated if the preset says so).
        height, width: the image's size.
        thresholds: the operating point for :meth:`label_image` and :meth:`confident`.
        canonical: how the image was seen (:class:`~nucleus_course.data.canonical.Canonical`); None if the input is colour.
        learned: the model's :class:`~nucleus_course.data.novelty.Novelty`, for :attr:`novelty`.
        image: the image, of any dtype, for the picture in a notebook; None if unknown.
        scale: by how much the image was enlarged before detection.
    """

    boxes: np.ndarray
    scores: np.ndarray
    mask_probs: np.ndarray
    mask_boxes: np.ndarray
    height: int
    width: int
    thresholds: Thresholds = field(default_factory=Thresholds)
    canonical: object = field(default=None, repr=False)
    learned: object = field(default=None, repr=False)
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    scale: float = 1.0
    _pasted: tuple = field(default=None, init=False, repr=False, compare=False)

    def take(self, index):
        """The detections at ``index`` (ints, bools or a slice), in that order."""
        found = Detections(
            self.boxes[index], self.scores[index], self.mask_probs[index], self.mask_boxes[index],
            self.height, self.width, self.thresholds, self.canonical, self.learned,
            self.image, self.scale,
        )  # fmt: skip
        if self._pasted is not None:
            threshold, (instance, row, column) = self._pasted
            chosen = np.arange(len(self))[index]
            start, end = (np.searchsorted(instance, chosen, side) for side in ("left", "right"))
            pixel = ranges(start, end - start)
            own = np.repeat(np.arange(len(chosen)), end - start)
            found._pasted = threshold, (own, row[pixel], column[pixel])
        return found

    def confident(self, score_threshold=None):
        """Those with a score of at least ``score_threshold``; by default the operating point's."""
        limit = self.thresholds.score if score_threshold is None else score_threshold
        return self.take(self.scores >= limit)

    @property
    def quality(self):
        """(N,) float in [0, 1]: how little the area of each nucleus depends on where its outline is drawn."""
        return outline_quality(self.mask_probs)

    @property
    def masks(self):
        """(N, H, W) bool. Large for many detections: :meth:`rles` and :meth:`label_image` do not need it."""
        masks = np.zeros((len(self), self.height, self.width), bool)
        instance, row, column = self.pixels()
        masks[instance, row, column] = True
        return masks

    @property
    def areas(self):
        """(N,) int64, pixels of each mask; overlaps count in each mask."""
        pieces = [np.bincount(p.pixels()[0], minlength=len(p)) for _, p in self._pieces()]
        return np.concatenate([*pieces, np.zeros(0, np.int64)])

    def pixels(self):
        """Every mask pixel: instance, row, column (int64 each), by instance, column by column.

        Masks are pasted once and kept, also for :meth:`take`, until ``thresholds.mask`` changes.
        """
        threshold = self.thresholds.mask
        if self._pasted is None or self._pasted[0] != threshold:
            pixels = paste(self.mask_probs, self.mask_boxes, self.height, self.width, threshold)
            self._pasted = threshold, pixels
        return self._pasted[1]

    def _pieces(self):
        """Detections in pieces whose pixels fit into memory, each with the number of its first one."""
        if len(self) <= AT_ONCE:
            self.pixels()  # kept for the next call
        return [(i, self.take(slice(i, i + AT_ONCE))) for i in range(0, len(self), AT_ONCE)]

    def rles(self):
        """COCO's compressed run-length encoding of each mask: a list of {"size": [H, W], "counts": str}."""
        from nucleus_course.geometry.rle import rles_from_runs, runs_from_pixels  # pycocotools

        found = []
        for _, piece in self._pieces():
            instance, row, column = piece.pixels()
            runs = runs_from_pixels(instance, column * self.height + row, len(piece))
            found += rles_from_runs(runs, self.height, self.width)
        return found

    def labelled(self, score_threshold=None, min_area=None):
        """:meth:`label_image`, and the detections that have a label, that of label i + 1 at i."""
        sure = self.confident(score_threshold)
        min_area = self.thresholds.min_area if min_area is None else min_area
        labels = np.zeros((self.height, self.width), "int32")
        for first, piece in reversed(sure._pieces()):
            instance, row, column = piece.pixels()
            # Lowest score first, so that the highest is written last and stays.
            labels[row[::-1], column[::-1]] = instance[::-1] + first + 1
        area = np.bincount(labels.ravel(), minlength=len(sure) + 1)
        keep = area >= max(1, min_area)
        keep[0] = False
        if not keep[1:].all():
            labels = np.where(keep, np.cumsum(keep), 0).astype("int32")[labels]
        return labels, sure.take(keep[1:])
