"""Folders of label images, as written by ``predict``, StarDist, Cellpose or a student's own model.

One TIFF or PNG per image, called ``<image id>.tif`` (or .tiff, .png; Cellpose's
``<image id>_cp_masks`` is understood): one plane of whole numbers, 0 background and one number for
each nucleus. Scores are optional: ``scores.json`` ``{image id: {label: score}}``, or beside an image
``<image id>.csv`` with the columns ``label`` and ``score``. Without scores every nucleus scores 1: the
precision-recall curve has then only one point (a report warns of it); the metrics at the operating point
do not change.
"""

import math
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write, read_json
from nucleus_course._util.tables import read_table, whole_number
from nucleus_course._util.text import pluralize
from nucleus_course.data.read import read_pixels
from nucleus_course.prediction.interchange import ImagePredictions, Predictions, PredictionsError
from nucleus_course.prediction.picture import draw_outlines

SUFFIXES = (".tif", ".tiff", ".png")
CELLPOSE = "_cp_masks"
NO_LABELS = ("_cp_outlines", "_cp_output", "_flows", "_overlay", "_outlines")  # not label images


def read_label_image(path):
    """One label image, (H, W) of integers.

    Raises:
        PredictionsError: if the file is not an image, has several planes or channels, or holds
            fractions or negative numbers.
    """
    try:
        labels = read_pixels(path, mask=True).values
    except UserError as error:
        raise PredictionsError(str(error)) from None
    if labels.ndim != 2:
        raise PredictionsError(
            f"{path}: a label image has one plane, but this one has the shape {labels.shape}; "
            "masks that overlap go into predictions.json"
        )
    if labels.dtype.kind == "f":
        whole = labels.astype(np.int64) if np.isfinite(labels).all() else None
        if whole is None or (whole != labels).any():
            raise PredictionsError(f"{path}: label images hold whole numbers, not fractions")
        labels = whole
    if labels.dtype.kind not in "iub":
        raise PredictionsError(f"{path}: label images hold whole numbers, not {labels.dtype}")
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise PredictionsError(f"{path}: a label is negative; labels are 0 (background), 1, 2, ...")
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def load_label_folder(folder):
    """Read a folder of label images, or its subfolder ``labels`` if it holds none itself.

    A file ``<image id>`` beside ``<image id>_cp_masks`` is taken to be the image itself.

    Returns:
        :class:`Predictions` without a score threshold: every label counts.

    Raises:
        PredictionsError: naming the file at fault; two files for one image are refused.
    """
    folder = Path(folder)
    files, warnings = _label_files(folder)
    if not files and (folder / "labels").is_dir():
        folder = folder / "labels"
        files, warnings = _label_files(folder)
    if not files:
        raise PredictionsError(
            f"{folder}: holds neither predictions.json nor label images (.tif, .tiff, .png)"
        )
    scores_file = folder / "scores.json"
    all_scores = _scores_json(scores_file) if scores_file.is_file() else {}
    images, sources, scored = {}, {}, scores_file.is_file()
    for path in files:
        key = path.stem.removesuffix(CELLPOSE)
        if key in sources:
            raise PredictionsError(
                f"{path}: the image '{key}' already has a label image, {sources[key].name}; keep one"
            )
        sources[key] = path
        labels, own = read_label_image(path), folder / f"{key}.csv"
        table, where = all_scores.get(key), scores_file
        if own.is_file():
            table, where, scored = _scores_csv(own), own, True
        scores = None
        if table is not None:
            present = np.unique(labels[labels > 0]).tolist()
            lost = [label for label in present if label not in table]
            if lost:
                raise PredictionsError(f"{where}: image '{key}' has no score for label {lost[0]}")
            scores = [table[label] for label in present]
        images[key] = ImagePredictions.from_labels(labels, scores, key + path.suffix)
    unknown = sorted(set(all_scores) - set(images))
    if unknown:
        raise PredictionsError(f"{scores_file}: the folder has no label image '{unknown[0]}'")
    return Predictions(images, None, {"model": folder.name, "scores": scored}, warnings)


def _label_files(folder):
    """(label images in a folder, sorted by name, and a line about files that were skipped)."""
    try:
        names = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError as error:
        raise PredictionsError(f"{folder}: cannot be read ({error.strerror or error})") from None
    names = sorted(p for p in names if not p.name.startswith("."))
    masks = {p.stem.removesuffix(CELLPOSE) for p in names if p.stem.endswith(CELLPOSE)}
    kept = [p for p in names if not p.stem.endswith(NO_LABELS) and p.stem not in masks]
    if len(kept) == len(names):
        return kept, []
    other = next(p for p in names if p not in kept)
    count = pluralize(len(names) - len(kept), "file")
    return kept, [f"{count} passed over as no label image, such as {other.name}"]


def _scores_json(path):
    """{image id: {label: score}}."""
    document = read_json(path, error_type=PredictionsError)
    try:
        return {
            key: {whole_number(i): _score(s, path) for i, s in table.items()}
            for key, table in document.items()
        }
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise PredictionsError(
            f"{path}: {{image id: {{label: score}}}} is expected ({error})"
        ) from None


def _scores_csv(path):
    """{label: score} of a CSV file, whatever its delimiter and decimal mark."""
    try:
        rows = [
            [row[column].replace(",", ".") for column in ("label", "score")]  # decimal commas
            for row in read_table(path, ("label", "score"))
        ]
        table = {whole_number(label): _score(score, path) for label, score in rows}
    except PredictionsError:
        raise
    except UserError as error:
        raise PredictionsError(str(error)) from None
    except (ValueError, OverflowError) as error:
        text = f"{path}: the columns label and score are numbers ({error})"
        raise PredictionsError(text) from None
    if len(table) != len(rows):
        raise PredictionsError(f"{path}: a label occurs twice")
    return table


def _score(value, path):
    score = float(value)
    if not math.isfinite(score):
        raise PredictionsError(f"{path}: a score is {value}: scores are finite numbers")
    return score


def write_labels(path, labels):
    """Write a label image (H, W) as a compressed TIFF, uint16, or uint32 above 65,535 labels."""
    import tifffile

    dtype = "uint16" if labels.max(initial=0) <= 65535 else "uint32"
    with atomic_write(path) as place:
        tifffile.imwrite(place, labels.astype(dtype), compression="zlib")


def write_overlay(path, image, labels):
    """Write an image (H, W, 3) uint8 as a PNG with the outline of each label in orange."""
    from PIL import Image

    with atomic_write(path) as place:
        Image.fromarray(draw_outlines(image, labels)).save(place, format="PNG")
