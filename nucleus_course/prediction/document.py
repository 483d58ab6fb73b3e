"""predictions.json as a document: written, and every field checked when it is read."""

import math
from pathlib import PurePosixPath

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.geometry.rle import boxes_from_rles, compress
from nucleus_course.prediction.interchange import ImagePredictions, Predictions, PredictionsError

NUCLEUS = ("nucleus", "nuclei")
LONGEST_SIDE = 1_000_000  # pixels


def to_document(predictions):
    """The dict that predictions.json holds."""
    info = {**predictions.info, "score_threshold": predictions.score_threshold}
    images, annotations = [], []
    for number, (key, image) in enumerate(predictions.images.items(), start=1):
        name = image.file_name or f"{key}.png"
        images.append(
            {"id": number, "file_name": name, "height": image.height, "width": image.width}
        )
        rows = zip(image.rles, image.scores.tolist(), image.boxes.tolist())
        for rle, score, (y1, x1, y2, x2) in rows:
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": 1, "segmentation": rle,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score,
            })  # fmt: skip
    categories = [{"id": 1, "name": "nucleus"}]
    return {"info": info, "images": images, "categories": categories, "annotations": annotations}


def from_document(document):
    """Inverse of :func:`to_document`: checks every field that it reads.

    Categories: the only one counts, or of several the one called nucleus. What is left out, and an
    ``area`` that is not the mask's, becomes a line of ``warnings``.

    Raises:
        PredictionsError: one line that names the place in the document.
    """
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
    places, sizes = _images(document["images"])
    rows, areas, others = _annotations(document, places, sizes)
    images, odd = {}, 0
    for key, (height, width, name) in sizes.items():
        rles, scores, boxes = rows[key]
        if any(box is None for box in boxes):
            tight = boxes_from_rles(rles)
            boxes = [tight[i] if box is None else box for i, box in enumerate(boxes)]
        image = ImagePredictions(height, width, rles, scores, np.reshape(boxes, (-1, 4)), name)
        try:
            pixels = image.runs().areas
        except PredictionsError as error:
            raise PredictionsError(f"image '{key}': {error}") from None
        given = np.array([np.nan if a is None else a for a in areas[key]])
        odd += int((np.abs(given - pixels) > np.maximum(2, 0.1 * pixels)).sum())
        images[key] = image
    warnings = []
    if others:
        warnings.append(f"{pluralize(others, 'annotation')} of other categories than nucleus left out")  # fmt: skip
    if odd:
        warnings.append(f"{pluralize(odd, 'annotation')} with an 'area' that is not the mask's: the masks count")  # fmt: skip
    rest = {k: v for k, v in info.items() if k != "score_threshold"}
    return Predictions(images, None if threshold is None else float(threshold), rest, warnings)


def _images(items):
    """({id in the file: image id}, {image id: (height, width, file name)})."""
    places, sizes = {}, {}
    for place, image in enumerate(items):
        where = f"images[{place}]"
        number, name, height, width = _fields(image, where, "id", "file_name", "height", "width")
        key = PurePosixPath(name.replace("\\", "/")).stem if isinstance(name, str) else ""
        if not key:
            raise PredictionsError(f"{where}.file_name is {name!r}, not a path")
        if not all(_is_whole(n) and 0 < n <= LONGEST_SIDE for n in (height, width)):
            raise PredictionsError(
                f"{where}: height and width are {height!r} and {width!r}, not whole numbers of pixels"
            )
        if not isinstance(number, (int, str)):
            raise PredictionsError(f"{where}.id is {number!r}, not a number or text")
        if number in places:
            raise PredictionsError(f"the image id {number!r} occurs twice: ids are unique")
        if key in sizes:
            raise PredictionsError(
                f"two images are called '{key}': the stem of file_name is the id, so it is unique"
            )
        places[number], sizes[key] = key, (height, width, name)
    return places, sizes


def _annotations(document, places, sizes):
    """({image id: (rles, scores, boxes)}, {image id: areas or None}, annotations of other categories)."""
    rows = {key: ([], [], []) for key in sizes}
    areas = {key: [] for key in sizes}
    nucleus = _nucleus_category(document)
    seen, others = set(), 0
    for place, item in enumerate(document["annotations"]):
        where = f"annotations[{place}]"
        number, mask, score = _fields(item, where, "image_id", "segmentation", "score")
        if not isinstance(number, (int, str)) or number not in places:
            raise PredictionsError(f"{where}.image_id is {number!r}, which is not among 'images'")
        if "id" in item:
            if not isinstance(item["id"], (int, str)) or item["id"] in seen:
                raise PredictionsError(
                    f"{where}.id is {item['id']!r}, which occurs twice or is not an id"
                )
            seen.add(item["id"])
        if not _is_number(score):
            raise PredictionsError(f"{where}.score is {score!r}: scores are finite numbers")
        if item.get("iscrowd"):
            raise PredictionsError(
                f"{where}.iscrowd is {item['iscrowd']!r}: a region of many nuclei is no detection; remove it"
            )
        area = item.get("area")
        if area is not None and not _is_number(area):
            raise PredictionsError(f"{where}.area is {area!r}, not a number")
        if not nucleus(item.get("category_id"), where):
            others += 1
            continue
        key = places[number]
        height, width, _ = sizes[key]
        rles, scores, boxes = rows[key]
        rles.append(_segmentation(mask, where, height, width))
        scores.append(float(score))
        boxes.append(_box(item.get("bbox"), where))
        areas[key].append(area)
    return rows, areas, others


def _nucleus_category(document):
    """A function (category id, place) -> whether it means nucleus."""
    categories = document.get("categories") or []
    if not isinstance(categories, list):
        raise PredictionsError("'categories' is not a list")
    names = {}
    for place, category in enumerate(categories):
        number = _fields(category, f"categories[{place}]", "id")[0]
        if not isinstance(number, (int, str)) or number in names:
            raise PredictionsError(
                f"categories[{place}].id is {number!r}, which occurs twice or is no id"
            )
        names[number] = str(category.get("name", "")).strip().lower()
    wanted = [n for n, name in names.items() if len(names) == 1 or name in NUCLEUS]
    used = {a.get("category_id") for a in document["annotations"] if isinstance(a, dict)
            and isinstance(a.get("category_id"), (int, str))}  # fmt: skip
    if names and not wanted:
        raise PredictionsError(
            f"'categories' are {', '.join(names.values())}: name the one that counts 'nucleus'"
        )
    if not names and len(used) > 1:
        listed = ", ".join(sorted(map(str, used)))
        raise PredictionsError(
            f"category_id is {listed}, without 'categories': say there which one is the nucleus"
        )

    def nucleus(number, where):
        if number is not None and not isinstance(number, (int, str)):
            raise PredictionsError(f"{where}.category_id is {number!r}, not a number or text")
        if number is not None and names and number not in names:
            raise PredictionsError(
                f"{where}.category_id is {number!r}, which is not among 'categories'"
            )
        return number is None or not names or number in wanted

    return nucleus


def _fields(item, where, *names):
    if not isinstance(item, dict):
        raise PredictionsError(f"{where} is not an object")
    missing = [name for name in names if name not in item]
    if missing:
        hint = ": this looks like ground truth, predictions have scores"
        hint = hint if missing == ["score"] else ""
        raise PredictionsError(f"{where} has no {', '.join(missing)}{hint}")
    return [item[name] for name in names]


def _is_number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


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
        whole = all(_is_whole(n) and n >= 0 for n in counts)
        if not whole or sum(counts) != height * width:
            raise PredictionsError(
                f"{where}: the runs do not add up to the {height * width} pixels of the image"
            )
        return compress([{"size": size, "counts": counts}])[0]
    if not isinstance(counts, str) or not counts:
        raise PredictionsError(f"{where}: counts is neither text nor a list of numbers")
    return {"size": size, "counts": counts}
