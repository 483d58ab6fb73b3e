"""A folder of label images as predictions: what StarDist, Cellpose or a student's own model writes.

One TIFF or PNG an image, called ``<image id>.tif`` (or .tiff, .png; Cellpose's ``<image id>_cp_masks`` is understood):
one plane of unsigned or non-negative integers of 8, 16 or 32 bits, 0 background and one number a nucleus.
Scores are optional: ``scores.json`` ``{image id: {label: score}}``, or beside an image ``<image id>.csv`` with the
columns ``label`` and ``score``. Without them every nucleus scores 1, which leaves the average precision
one point of a curve (a report warns of it); the metrics at the operating point are the same.
"""

import csv
import json
import math
from pathlib import Path

import numpy as np

from nucleus_course._util.files import write_atomically
from nucleus_course.geometry.rle import rle_from_labels
from nucleus_course.prediction.interchange import ImagePredictions, Predictions, PredictionsError

SUFFIXES = (".tif", ".tiff", ".png")


def read_label_image(path):
    """One label image, (H, W) of unsigned integers or int32.

    Raises:
        PredictionsError: if the file is no image, has several planes or channels, or is not of whole numbers.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".png":
            from PIL import Image

            with Image.open(path) as image:
                labels = np.array(image)
        else:
            import tifffile

            labels = tifffile.imread(path)
    except Exception as error:  # the decoders raise many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PredictionsError(f"{path}: cannot be read as an image ({reason})") from None
    labels = np.squeeze(labels) if labels.ndim > 2 else labels
    if labels.ndim != 2:
        raise PredictionsError(
            f"{path}: a label image has one plane, this has the shape {labels.shape}; "
            "masks that overlap go into predictions.json"
        )
    if labels.dtype.kind not in "iub":
        raise PredictionsError(
            f"{path}: label images hold whole numbers, not {labels.dtype}; save it as uint16"
        )
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise PredictionsError(f"{path}: a label is negative; labels are 0 (background), 1, 2, ...")
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def load_label_folder(folder):
    """Read a folder of label images, or its sub-folder ``labels`` if it holds none itself.

    Returns:
        :class:`Predictions` without a score threshold: every label counts.

    Raises:
        PredictionsError: naming the file at fault; two files for one image are refused.
    """
    folder = Path(folder)
    files = _images_in(folder)
    if not files and (folder / "labels").is_dir():
        folder = folder / "labels"
        files = _images_in(folder)
    if not files:
        raise PredictionsError(
            f"{folder}: holds neither predictions.json nor label images (.tif, .tiff, .png)"
        )
    all_scores = _scores_json(folder / "scores.json")
    images, sources = {}, {}
    for path in files:
        key = path.stem.removesuffix("_cp_masks")
        if key in sources:
            raise PredictionsError(
                f"{path}: the image '{key}' has a label image already, {sources[key].name}; keep one"
            )
        sources[key] = path
        ids, rles = rle_from_labels(read := read_label_image(path))
        table = _scores_csv(folder / f"{key}.csv")
        where = folder / (f"{key}.csv" if table is not None else "scores.json")
        if table is None:
            table = all_scores.get(key) if all_scores is not None else None
        scores = None
        if table is not None:
            lost = [int(i) for i in ids if int(i) not in table]
            if lost:
                raise PredictionsError(f"{where}: image '{key}' has no score for label {lost[0]}")
            scores = [table[int(i)] for i in ids]
        images[key] = ImagePredictions(*read.shape, rles, scores, file_name=key + path.suffix)
    unknown = sorted(set(all_scores or {}) - set(images))
    if unknown:
        raise PredictionsError(
            f"{folder / 'scores.json'}: no label image '{unknown[0]}' in the folder"
        )
    return Predictions(
        images,
        None,
        {"model": folder.name, "scores": all_scores is not None or _has_csv(folder, images)},
    )


def _images_in(folder):
    names = [
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    ]
    return sorted(p for p in names if p.is_file())


def _has_csv(folder, keys):
    return any((folder / f"{key}.csv").is_file() for key in keys)


def _scores_json(path):
    """{image id: {label: score}} or None if there is no such file."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: {int(i): _score(s, path) for i, s in table.items()}
            for key, table in document.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise PredictionsError(
            f"{path}: {{image id: {{label: score}}}} is expected ({error})"
        ) from None


def _scores_csv(path):
    """{label: score} or None if there is no such file."""
    if not path.is_file():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = {int(row["label"]): _score(row["score"], path) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise PredictionsError(
            f"{path}: the columns label and score are expected ({error})"
        ) from None
    if len(table) != len(rows):
        raise PredictionsError(f"{path}: a label occurs twice")
    return table


def _score(value, path):
    score = float(value)
    if not math.isfinite(score):
        raise PredictionsError(f"{path}: a score is {value}: scores are finite numbers")
    return score


def write_labels(path: Path, labels) -> None:
    """Write a label image (H, W) as a compressed TIFF, uint16, or uint32 above 65,535 labels."""
    import tifffile

    dtype = "uint16" if labels.max(initial=0) <= 65535 else "uint32"
    write_atomically(
        path, lambda place: tifffile.imwrite(place, labels.astype(dtype), compression="zlib")
    )


def write_overlay(path: Path, image, labels) -> None:
    """Write an image (H, W, 3) uint8 as a PNG with the outline of each label in orange."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    painted = image.copy()
    painted[find_boundaries(labels, mode="inner")] = (230, 159, 0)  # Okabe and Ito's orange
    write_atomically(path, lambda place: Image.fromarray(painted).save(place, format="PNG"))
