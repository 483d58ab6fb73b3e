"""Predictions of any model, in one format.

``predictions.json`` is COCO-style: ``images`` (id, file_name, height, width), ``categories``,
``annotations`` (image_id, category_id, ``segmentation`` as compressed RLE, ``bbox`` [x, y, w, h],
``score``) with every detection kept, and ``info.score_threshold``, the operating point. The stem of
an image's file_name is its id in the data set. :mod:`nucleus_course.prediction.document` checks what
is read. Folders of label images are read too (:mod:`nucleus_course.prediction.label_images`).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json, write_json
from nucleus_course.geometry.rle import (
    boxes_from_rles,
    resolve_overlaps,
    rle_from_labels,
    runs_from_rles,
)


class PredictionsError(UserError):
    """Predictions that cannot be read or do not fit the data set."""


@dataclass
class ImagePredictions:
    """The detections of one image.

    Attributes:
        height, width: of the image, pixels.
        rles: N compressed RLEs ``{"size": [height, width], "counts": str}``; they may overlap.
        scores: (N,) float64, finite, in any order; higher is surer; all 1 if None is given.
        boxes: (N, 4) float32 (y1, x1, y2, x2) in pixels; the masks' tight boxes if None is given.
        file_name: path of the image, for the file; ``<id>.png`` if None.

    Raises:
        PredictionsError: if the lengths differ, or a score is not finite.
    """

    height: int
    width: int
    rles: list = field(default_factory=list)
    scores: np.ndarray = None
    boxes: np.ndarray = None
    file_name: str = None

    def __post_init__(self):
        self.height, self.width = int(self.height), int(self.width)
        self.rles = [
            {"size": [int(n) for n in r["size"]], "counts": _text(r["counts"])} for r in self.rles
        ]
        scores = np.ones(len(self.rles)) if self.scores is None else self.scores
        self.scores = np.asarray(scores, np.float64).reshape(-1)
        boxes = boxes_from_rles(self.rles) if self.boxes is None else self.boxes
        self.boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        lengths = len(self.rles), len(self.scores), len(self.boxes)
        if len(set(lengths)) > 1:
            raise PredictionsError(
                "{} masks, {} scores and {} boxes: give the same number of each".format(*lengths)
            )
        if not np.isfinite(self.scores).all():
            bad = int(np.argmin(np.isfinite(self.scores)))
            raise PredictionsError(
                f"detection {bad} has the score {self.scores[bad]}: scores are finite numbers"
            )
        self._runs = None

    def __len__(self):
        return len(self.rles)

    @classmethod
    def from_labels(cls, labels, scores=None, file_name=None):
        """From a label image (H, W) of integers, 0 background; ``scores`` in rising order of the labels, or all 1."""
        try:
            ids, rles = rle_from_labels(labels)
        except ValueError as error:
            raise PredictionsError(f"{file_name or 'label image'}: {error}") from None
        if scores is not None and len(scores) != len(ids):
            raise PredictionsError(
                f"{file_name or 'label image'}: {len(ids)} labels but {len(scores)} scores"
            )
        return cls(*labels.shape, rles, scores, file_name=file_name)

    def runs(self):
        """The masks as :class:`~nucleus_course.geometry.rle.Runs`, decoded once.

        Raises:
            PredictionsError: for a mask of another size than the image, or one that is not valid RLE.
        """
        if self._runs is None:
            try:
                self._runs = runs_from_rles(self.rles, self.height, self.width)
            except ValueError as error:
                raise PredictionsError(str(error)) from None
        return self._runs

    def label_image(self, score_threshold=None, min_area=0):
        """The label image at an operating point: (H, W) int32, label i + 1 for detection i (in this object's order).

        Where detections overlap, the higher score keeps the pixel. Then those below the threshold are
        removed, and those left with fewer than ``min_area`` pixels, or none.

        >>> top, left = np.indices((2, 4)) < 1
        >>> both = ImagePredictions.from_labels(top.astype(int)).rles + ImagePredictions.from_labels(left.astype(int)).rles
        >>> found = ImagePredictions(2, 4, both, [0.9, 0.6])
        >>> found.label_image()
        array([[1, 1, 1, 1],
               [2, 0, 0, 0]], dtype=int32)
        >>> found.label_image(score_threshold=0.7).tolist(), found.label_image(min_area=2).tolist()
        ([[1, 1, 1, 1], [0, 0, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]])
        """
        painted = resolve_overlaps(self.runs(), self.scores, self.height, self.width)
        keep = np.bincount(painted.ravel(), minlength=len(self) + 1) >= max(1, min_area or 0)
        keep[0] = False
        if score_threshold is not None:
            keep[1:] &= self.scores >= score_threshold
        return np.where(keep, np.arange(len(keep)), 0).astype(np.int32)[painted]


def _text(counts):
    return counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts


@dataclass
class Predictions:
    """Detections of a set of images.

    Attributes:
        images: {image id: :class:`ImagePredictions`}.
        score_threshold: the operating point, or None if unknown.
        info: anything else worth keeping: ``model``, ``thresholds``, ``min_area`` ...
        warnings: what was left out or guessed when a file was read, one line each.
    """

    images: dict = field(default_factory=dict)
    score_threshold: float = None
    info: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)

    def __len__(self):
        return len(self.images)

    @property
    def name(self):
        """Name for tables: that of the model, if known."""
        return str(self.info.get("model", "predictions"))

    @property
    def detections(self):
        """The number of detections in all images."""
        return sum(len(image) for image in self.images.values())

    @classmethod
    def from_label_images(cls, labels, scores=None, score_threshold=None, info=None):
        """From {id: (H, W) integer label image} and, optionally, {id: scores in rising order of the labels}."""
        images = {
            key: ImagePredictions.from_labels(np.asarray(image), (scores or {}).get(key), f"{key}.png")
            for key, image in labels.items()
        }  # fmt: skip
        return cls(images, score_threshold, dict(info or {}))

    @classmethod
    def load(cls, path):
        """Read predictions.json, a folder that holds one (or ``labels/``), or a folder of label images.

        Raises:
            PredictionsError: one line that names the file, what is wrong in it and what to do.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "predictions.json").is_file():
                from nucleus_course.prediction.label_images import load_label_folder

                return load_label_folder(path)
            path = path / "predictions.json"
        from nucleus_course.prediction.document import from_document

        document = read_json(path, error_type=PredictionsError)
        try:
            return from_document(document)
        except UserError as error:
            raise PredictionsError(f"{path}: {error}") from None

    def save(self, path):
        """Write predictions.json atomically."""
        from nucleus_course.prediction.document import to_document

        write_json(path, to_document(self), indent=None)
