"""The contents of predictions.json: how they are written, and every field checked on reading."""

import math
from pathlib import PurePosixPath

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.geometry.rle import boxes_from_rles, compress
from nucleus_course.prediction.interchange import ImagePredictions, Predictions, PredictionsError

NUCLEUS = ("nucleus", "nuclei")
LONGEST_SIDE = 1_000_000  # pixels


def _check(fine, message):
    """Raise PredictionsError with the message unless ``fine``."""
    if not fine:
        raise PredictionsError(message)


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

    If there are several categories, only the one called nucleus counts. What is left out, and an ``area``
    that is not the mask's, becomes a line of ``warnings``.

    Raises:
        PredictionsError: one line that names the place in the document.
    """
    if isinstance(document, list):
        raise PredictionsError(
            "a bare list of results: add 'images', with id, file_name, height, width"
        )
    kind = type(document).__name__
    _check(isinstance(document, dict), f"a JSON object is expected, not {kind}")
    for key in ("images", "annotations"):
        _check(isinstance(document.get(key), list), f"the list '{key}' is missing")
    info = document.get("info") or {}
    _check(isinstance(info, dict), "'info' is not an object")
    threshold = info.get("score_threshold")
    fine = threshold is None or _is_number(threshold)
    _check(fine, f"info.score_threshold is {threshold!r}, not a number")
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
        _check(key, f"{where}.file_name is {name!r}, not a path")
        sides = f"{where}: height and width are {height!r} and {width!r}"
        fine = all(_is_whole(n) and 0 < n <= LONGEST_SIDE for n in (height, width))
        _check(fine, f"{sides}, not whole numbers of pixels")
        _check(_is_id(number), f"{where}.id is {number!r}, not a number or text")
        _check(number not in places, f"the image id {number!r} occurs twice: ids are unique")
        unique = "the stem of file_name is the id, so it is unique"
        _check(key not in sizes, f"two images are called '{key}': {unique}")
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
        known = _is_id(number) and number in places
        _check(known, f"{where}.image_id is {number!r}, which is not among 'images'")
        if "id" in item:
            own = item["id"]
            new = _is_id(own) and own not in seen
            _check(new, f"{where}.id is {own!r}, which occurs twice or is not an id")
            seen.add(own)
        _check(_is_number(score), f"{where}.score is {score!r}: scores are finite numbers")
        crowd, advice = item.get("iscrowd"), "a region of many nuclei is no detection; remove it"
        _check(not crowd, f"{where}.iscrowd is {crowd!r}: {advice}")
        area = item.get("area")
        _check(area is None or _is_number(area), f"{where}.area is {area!r}, not a number")
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
    _check(isinstance(categories, list), "'categories' is not a list")
    names = {}
    for place, category in enumerate(categories):
        number = _fields(category, f"categories[{place}]", "id")[0]
        new = _is_id(number) and number not in names
        _check(new, f"categories[{place}].id is {number!r}, which occurs twice or is no id")
        names[number] = str(category.get("name", "")).strip().lower()
    wanted = [n for n, name in names.items() if len(names) == 1 or name in NUCLEUS]
    given = [a.get("category_id") for a in document["annotations"] if isinstance(a, dict)]
    used = {number for number in given if _is_id(number)}
    listed = ", ".join(names.values())
    _check(wanted or not names, f"'categories' are {listed}: name the one that counts 'nucleus'")
    listed, advice = ", ".join(sorted(map(str, used))), "say there which one is the nucleus"
    clear = names or len(used) <= 1
    _check(clear, f"category_id is {listed}, without 'categories': {advice}")

    def nucleus(number, where):
        if number is None:
            return True
        _check(_is_id(number), f"{where}.category_id is {number!r}, not a number or text")
        known = not names or number in names
        _check(known, f"{where}.category_id is {number!r}, which is not among 'categories'")
        return not names or number in wanted

    return nucleus


def _fields(item, where, *names):
    _check(isinstance(item, dict), f"{where} is not an object")
    missing = [name for name in names if name not in item]
    hint = ": this looks like ground truth, predictions have scores"
    hint = hint if missing == ["score"] else ""
    _check(not missing, f"{where} has no {', '.join(missing)}{hint}")
    return [item[name] for name in names]


def _is_number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def _is_id(value):
    return isinstance(value, (int, str))


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _box(bbox, where):
    """[x, y, w, h] as (y1, x1, y2, x2); None for no box."""
    if bbox is None:
        return None
    fine = isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))
    _check(fine, f"{where}.bbox is {bbox!r}: four numbers [x, y, w, h] are expected")
    x, y, w, h = bbox
    return [y, x, y + h, x + w]


def _segmentation(mask, where, height, width):
    """A compressed RLE of the image's size; a list of counts is compressed, polygons are refused."""
    advice = "store masks as RLE {size, counts}"
    _check(not isinstance(mask, list), f"{where}.segmentation is a polygon: {advice}")
    size, counts = _fields(mask, f"{where}.segmentation", "size", "counts")
    other = f"its image is [{height}, {width}] (height, width)"
    _check(size == [height, width], f"{where}: the mask has the size {size}, {other}")
    if isinstance(counts, list):
        pixels = height * width
        whole = all(_is_whole(n) and n >= 0 for n in counts) and sum(counts) == pixels
        _check(whole, f"{where}: the runs do not add up to the {pixels} pixels of the image")
        return compress([{"size": size, "counts": counts}])[0]
    text = isinstance(counts, str) and counts
    _check(text, f"{where}: counts is neither text nor a list of numbers")
    return {"size": size, "counts": counts}
