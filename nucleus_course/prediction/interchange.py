"""Predictions of any model, in one form.

``predictions.json`` is COCO-style: ``images`` (id, file_name, height, width), ``categories``, ``annotations``
(image_id, category_id, ``segmentation`` as compressed RLE, ``bbox`` [x, y, w, h], ``score``) with every detection kept,
and ``info.score_threshold``, the operating point. The stem of an image's file_name is its id in the data set.
A folder of label images does as well (:mod:`nucleus_course.prediction.label_images`).
"""

import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.rle import (
    boxes_from_rles,
    compress,
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
        scores: (N,) float64, finite; higher is surer. Any order.
        boxes: (N, 4) float32 (y1, x1, y2, x2) in pixels; the masks' tight boxes where None is given.
        file_name: path of the image, for the file; ``<id>.png`` where None.

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
        if not len(self.rles) == len(self.scores) == len(self.boxes):
            raise PredictionsError(
                f"{len(self.rles)} masks, {len(self.scores)} scores and {len(self.boxes)} boxes: give as many of each"
            )
        if not np.isfinite(self.scores).all():
            bad = int(np.argmin(np.isfinite(self.scores)))
            raise PredictionsError(
                f"detection {bad} has the score {self.scores[bad]}: scores are finite numbers"
            )

    def __len__(self):
        return len(self.rles)

    @classmethod
    def from_labels(cls, labels, scores=None, file_name=None):
        """From a label image (H, W) of integers, 0 background; ``scores`` in order of the labels present, else all 1."""
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
        """The masks decoded to :class:`~nucleus_course.geometry.rle.Runs`.

        Raises:
            PredictionsError: for a mask of another size than the image, or one that is not valid RLE.
        """
        try:
            return runs_from_rles(self.rles, self.height, self.width)
        except ValueError as error:
            raise PredictionsError(str(error)) from None

    def label_image(self, score_threshold=None, min_area=0):
        """The operating point: (H, W) int32, label i + 1 for detection i (in this object's order).

        Detections scored at or above the threshold share out the pixels, the higher score keeping each; then those
        left with fewer than ``min_area`` pixels go. What a detection keeps depends on higher scores only.
        """
        keep = np.arange(len(self))
        if score_threshold is not None:
            keep = np.flatnonzero(self.scores >= score_threshold)
        try:
            painted = resolve_overlaps(
                [self.rles[i] for i in keep], self.scores[keep], self.height, self.width
            )
        except ValueError as error:
            raise PredictionsError(str(error)) from None
        areas = np.bincount(painted.ravel(), minlength=len(keep) + 1)
        table = np.append([0], keep + 1).astype(np.int32)
        table[areas < max(1, min_area or 0)] = 0
        table[0] = 0
        return table[painted]


def _text(counts):
    return counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts


@dataclass
class Predictions:
    """Detections of a set of images.

    Attributes:
        images: {image id: :class:`ImagePredictions`}.
        score_threshold: the operating point, or None if the maker gave none.
        info: anything else worth keeping: ``model``, ``thresholds``, ``min_area`` ...
    """

    images: dict = field(default_factory=dict)
    score_threshold: float = None
    info: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.images)

    @property
    def name(self):
        """Name for tables: the model's where it is known."""
        return str(self.info.get("model", "predictions"))

    @property
    def detections(self):
        """How many there are in all images."""
        return sum(len(image) for image in self.images.values())

    @classmethod
    def from_label_images(cls, labels, scores=None, score_threshold=None, info=None):
        """From {id: (H, W) integer label image} and, optionally, {id: scores in order of the labels present}."""
        images = {}
        for key, image in labels.items():
            own = None if scores is None else scores.get(key)
            images[key] = ImagePredictions.from_labels(
                np.asarray(image), own, file_name=f"{key}.png"
            )
        return cls(images, score_threshold, dict(info or {}))

    @classmethod
    def load(cls, path):
        """Read predictions.json, a folder that holds one (or ``labels/``), or a folder of label images.

        Raises:
            PredictionsError: one line that names the file, what is wrong in it and the mend.
        """
        path = Path(path)
        if not path.exists():
            raise PredictionsError(f"{path}: no such file or folder")
        if path.is_dir():
            if (path / "predictions.json").is_file():
                return cls.load(path / "predictions.json")
            from nucleus_course.prediction.label_images import load_label_folder

            return load_label_folder(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise PredictionsError(f"{path}: not JSON ({error})") from None
        except OSError as error:
            raise PredictionsError(f"{path}: cannot be read ({error.strerror or error})") from None
        try:
            return from_document(document)
        except UserError as error:
            raise PredictionsError(f"{path}: {error}") from None

    def save(self, path):
        """Write predictions.json, whole or not at all (a temporary file is moved into place)."""
        write_json(path, to_document(self))


def write_json(path, document, indent=None):
    """Write JSON atomically. Not-a-number is refused: JSON has none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".partial"
    )
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=indent, allow_nan=False)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_document(predictions):
    """The dict that predictions.json holds."""
    info = dict(predictions.info)
    info["score_threshold"] = predictions.score_threshold
    images, annotations = [], []
    for number, (key, image) in enumerate(predictions.images.items(), start=1):
        images.append(
            {
                "id": number,
                "file_name": image.file_name or f"{key}.png",
                "height": image.height,
                "width": image.width,
            }
        )
        for rle, score, (y1, x1, y2, x2) in zip(
            image.rles, image.scores.tolist(), image.boxes.tolist()
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": rle,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    categories = [{"id": 1, "name": "nucleus"}]
    return {"info": info, "images": images, "categories": categories, "annotations": annotations}


def from_document(document):
    """Inverse of :func:`to_document`; checks everything it reads. ``category_id`` is not read: nuclei are the only class."""
    if isinstance(document, list):
        raise PredictionsError(
            "a bare list of results: 'images' is missing; add it, with id, file_name, height, width"
        )
    if not isinstance(document, dict):
        raise PredictionsError(f"a JSON object is expected, not {type(document).__name__}")
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise PredictionsError(f"the list '{key}' is missing")
    info = document.get("info") or {}
    if not isinstance(info, dict):
        raise PredictionsError("'info' is not an object")
    threshold = info.get("score_threshold")
    if threshold is not None and not _is_number(threshold):
        raise PredictionsError(f"info.score_threshold is {threshold!r}, not a number")

    keys, sizes = {}, {}
    for place, image in enumerate(document["images"]):
        number, name, height, width = _fields(
            image, f"images[{place}]", "id", "file_name", "height", "width"
        )
        key = PurePosixPath(name.replace("\\", "/")).stem if isinstance(name, str) else ""
        if not key:
            raise PredictionsError(f"images[{place}].file_name is {name!r}, not a path")
        if not all(
            isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (height, width)
        ):
            raise PredictionsError(
                f"images[{place}]: height and width are {height!r} and {width!r}, not whole numbers"
            )
        if not isinstance(number, (int, str)):
            raise PredictionsError(f"images[{place}].id is {number!r}, not a number or text")
        if number in keys:
            raise PredictionsError(f"the image id {number!r} occurs twice: ids are unique")
        if key in sizes:
            raise PredictionsError(
                f"two images are called '{key}': the stem of file_name is the id, so it is unique"
            )
        keys[number], sizes[key] = key, (height, width, name)

    found = {key: ([], [], []) for key in sizes}
    seen = set()
    for place, item in enumerate(document["annotations"]):
        where = f"annotations[{place}]"
        number, mask, score = _fields(item, where, "image_id", "segmentation", "score")
        if not isinstance(number, (int, str)) or number not in keys:
            raise PredictionsError(f"{where}.image_id is {number!r}, which is not among 'images'")
        if "id" in item:
            if not isinstance(item["id"], (int, str)) or item["id"] in seen:
                raise PredictionsError(
                    f"{where}.id is {item['id']!r}, which occurs twice or is not an id"
                )
            seen.add(item["id"])
        if not _is_number(score):
            raise PredictionsError(f"{where}.score is {score!r}: scores are finite numbers")
        height, width, _ = sizes[keys[number]]
        rles, scores, boxes = found[keys[number]]
        rles.append(_segmentation(mask, where, height, width))
        boxes.append(_box(item.get("bbox"), where))
        scores.append(float(score))

    images = {}
    for key, (rles, scores, boxes) in found.items():
        height, width, name = sizes[key]
        try:
            runs_from_rles(rles, height, width)
        except ValueError as error:
            raise PredictionsError(f"image '{key}': {error}") from None
        tight = boxes_from_rles(rles) if any(b is None for b in boxes) else None
        boxes = [tight[i] if b is None else b for i, b in enumerate(boxes)]
        images[key] = ImagePredictions(
            height, width, rles, scores, np.array(boxes).reshape(-1, 4), name
        )
    rest = {k: v for k, v in info.items() if k != "score_threshold"}
    return Predictions(images, None if threshold is None else float(threshold), rest)


def _fields(item, where, *names):
    if not isinstance(item, dict):
        raise PredictionsError(f"{where} is not an object")
    missing = [name for name in names if name not in item]
    if missing:
        hint = (
            ": this looks like ground truth, predictions have scores"
            if missing == ["score"]
            else ""
        )
        raise PredictionsError(f"{where} has no {', '.join(missing)}{hint}")
    return [item[name] for name in names]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _box(bbox, where):
    """[x, y, w, h] as (y1, x1, y2, x2); None where there is no box."""
    if bbox is None:
        return None
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        raise PredictionsError(f"{where}.bbox is {bbox!r}: four numbers [x, y, w, h] are expected")
    x, y, w, h = bbox
    return [y, x, y + h, x + w]


def _segmentation(mask, where, height, width):
    """A compressed RLE of the image's size; a list of counts is compressed, polygons are refused."""
    if isinstance(mask, list):
        raise PredictionsError(
            f"{where}.segmentation is a polygon: store masks as RLE {{size, counts}}"
        )
    size, counts = _fields(mask, f"{where}.segmentation", "size", "counts")
    if size != [height, width]:
        raise PredictionsError(
            f"{where}: the mask has the size {size}, its image is [{height}, {width}] (height, width)"
        )
    if isinstance(counts, list):
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts)
        if not whole or sum(counts) != height * width:
            raise PredictionsError(
                f"{where}: the runs do not add up to the {height * width} pixels of the image"
            )
        return compress([{"size": size, "counts": counts}])[0]
    if not isinstance(counts, str) or not counts:
        raise PredictionsError(f"{where}: counts is neither text nor a list of numbers")
    return {"size": size, "counts": counts}
