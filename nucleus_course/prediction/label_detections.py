"""Detections of methods that segment pixels first: one label image, one score per nucleus, no overlaps."""

from dataclasses import dataclass, field, replace

import numpy as np

from nucleus_course.config import Thresholds
from nucleus_course.data.labels import areas_from_labels, boxes_from_labels, renumber
from nucleus_course.geometry.rle import rle_from_labels
from nucleus_course.prediction.detections import Found


@dataclass(repr=False)
class LabelDetections(Found):
    """Nuclei on one image, best first; used like :class:`~nucleus_course.prediction.detections.Detections`.

    Attributes:
        labels: (H, W) int32, 0 background, i + 1 for detection i.
        scores: (N,) float32 in [0, 1], in falling order.
        thresholds: the operating point for :meth:`label_image` and :meth:`confident`.
        canonical, learned: as for :class:`~nucleus_course.prediction.detections.Detections`.
        image: the image, of any dtype, for the picture in a notebook; None if unknown.
    """

    labels: np.ndarray
    scores: np.ndarray
    thresholds: Thresholds = field(default_factory=Thresholds)
    canonical: object = field(default=None, repr=False)
    learned: object = field(default=None, repr=False)
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    quality = None  # needs mask probabilities for each nucleus, which there are not

    @classmethod
    def from_labels(cls, labels, scores, thresholds=None):
        """From a label image (H, W) of any numbering and the scores of its labels in rising order, (N,).

        Raises:
            ValueError: not as many scores as labels.
        """
        labels = renumber(labels)
        scores = np.asarray(scores, "float32").reshape(-1)
        if labels.max(initial=0) != len(scores):
            raise ValueError(f"{labels.max(initial=0)} labels but {len(scores)} scores")
        order = np.argsort(-scores, kind="stable")
        place = np.zeros(len(scores) + 1, "int32")
        place[order + 1] = np.arange(1, len(scores) + 1)
        return cls(place[labels], scores[order], thresholds or Thresholds())

    @property
    def height(self):
        return self.labels.shape[0]

    @property
    def width(self):
        return self.labels.shape[1]

    @property
    def boxes(self):
        """(N, 4) float32 (y1, x1, y2, x2), image pixels."""
        return boxes_from_labels(self.labels)[1]

    @property
    def areas(self):
        """(N,) int64, pixels."""
        return areas_from_labels(self.labels)[1]

    @property
    def masks(self):
        """(N, H, W) bool; large for many detections."""
        return self.labels[None] == np.arange(1, len(self) + 1)[:, None, None]

    def rles(self):
        """COCO's compressed run-length encoding of each mask: a list of {"size": [H, W], "counts": str}."""
        return rle_from_labels(self.labels)[1]

    def confident(self, score_threshold=None):
        """Those with a score of at least ``score_threshold``; by default the operating point's."""
        limit = self.thresholds.score if score_threshold is None else score_threshold
        count = int((self.scores >= limit).sum())  # scores fall, so these are the first
        labels = np.where(self.labels > count, 0, self.labels)
        return replace(self, labels=labels, scores=self.scores[:count])

    def labelled(self, score_threshold=None, min_area=None):
        """:meth:`label_image`, and the detections that have a label, that of label i + 1 at i."""
        sure = self.confident(score_threshold)
        min_area = self.thresholds.min_area if min_area is None else min_area
        small = np.bincount(sure.labels.ravel(), minlength=len(sure) + 1) < max(1, min_area)
        labels = renumber(np.where(small[sure.labels], 0, sure.labels))
        return labels, replace(sure, labels=labels, scores=sure.scores[~small[1:]])
