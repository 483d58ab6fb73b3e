"""COCO, LabelMe, VIA and GeoJSON as shapes by image.

A reader takes the parsed JSON and the file's name and returns
{image: :class:`~nucleus_course.data.annotations.shapes.Annotation`}, by the image's name in the file. It raises
ValueError for invalid content.
"""

import base64
import binascii
from pathlib import PurePosixPath

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.annotations.shapes import (
    Annotation,
    coco_segmentation,
    ellipse,
    mask,
    polygon,
    rectangle,
)

FEW = "of fewer than three points"
NO_AREA = "that are points or lines"
UNREADABLE = "that make no sense"
TWICE = "the file lists two images of this name: give each its own, or remove one"
OLD_QUPATH = {  # what QuPath 0.2 wrote as id: today's objectType
    "PathAnnotationObject": "annotation", "PathCellObject": "cell", "PathDetectionObject": "detection",
    "PathRootObject": "root", "PathTileObject": "tile", "TMACoreObject": "tma_core",
}  # fmt: skip


def is_coco(data):
    return isinstance(data, dict) and all(
        isinstance(data.get(key), list) for key in ("images", "annotations")
    )


def is_labelme(data):
    return isinstance(data, dict) and isinstance(data.get("shapes"), list) and "imagePath" in data


def is_via(data):
    rows = _via_rows(data)
    return bool(rows) and all(isinstance(r, dict) and "filename" in r and "regions" in r for r in rows)  # fmt: skip


def is_geojson(data):
    features = _features(data)
    if not features:  # a collection without objects: an image without nuclei
        return isinstance(data, dict) and data.get("type") == "FeatureCollection"
    return all(isinstance(f, dict) and "geometry" in f for f in features)


def add(annotation, name, make):
    """Append the shape that ``make()`` returns, or note why there is none."""
    try:
        shape = make()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        text = str(error)
        annotation.drop(FEW if text == "fewer than three points" else UNREADABLE, name)
    else:
        if shape is None:
            annotation.drop(NO_AREA, name)
        else:
            annotation.shapes.append(shape)


def sized(file, height, width):
    """An :class:`Annotation` for an image of the stated size, if both sides are given."""
    if not (height and width):
        return Annotation(file)
    try:
        size = float(height), float(width)
    except (ValueError, TypeError, OverflowError):
        text = f"made for an image of {width!r} x {height!r} pixels (width x height), which are no numbers"
        return Annotation(file, refused=text)
    return Annotation(file, tuple(int(side) if side % 1 == 0 else side for side in size))


def ring(name, points, category=""):
    """A polygon of one ring (K, 2); raises ValueError for fewer than three points."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] < 2 or len(np.unique(points[:, :2], axis=0)) < 3:
        raise ValueError("fewer than three points")
    return polygon(name, [points[:, :2]], category)


# ---------------------------------------------------------------- COCO


def read_coco(data, file):
    """Instances: polygons and run lengths; crowds are left out and reported."""
    names, found = {}, {}
    for image in data["images"]:
        if not isinstance(image, dict) or "id" not in image or "file_name" not in image:
            raise ValueError("an image without id or file_name")
        if image["id"] in names:
            raise ValueError(f"two images with the id {image['id']!r}")
        names[image["id"]] = name = str(image["file_name"])
        twice = name in found
        found[name] = sized(file, image.get("height"), image.get("width"))
        found[name].refused = TWICE if twice else found[name].refused
    listed = [c for c in data.get("categories") or [] if isinstance(c, dict)]
    categories = {c.get("id"): str(c.get("name", c.get("id"))) for c in listed}
    for number, row in enumerate(data["annotations"]):
        if not isinstance(row, dict):
            raise ValueError(f"annotation {number} is {row!r}")
        name = f"annotation {row.get('id', number)}"
        if row.get("image_id") not in names:
            raise ValueError(
                f"{name} belongs to image {row.get('image_id')!r}, which is not listed"
            )
        annotation = found[names[row["image_id"]]]
        category = categories.get(row.get("category_id"), str(row.get("category_id", "")))
        if row.get("iscrowd"):
            annotation.drop("that are crowds, without separate nuclei", name)
        elif not row.get("segmentation"):
            annotation.drop("without an outline (boxes alone)", name)
        else:
            segmentation = row["segmentation"]
            add(annotation, name, lambda s=segmentation, n=name, c=category: coco_segmentation(n, s, c))  # fmt: skip
    return found


# ---------------------------------------------------------------- LabelMe


def read_labelme(data, file):
    """One image per file: polygons, rectangles, circles and masks."""
    annotation = sized(file, data.get("imageHeight"), data.get("imageWidth"))
    for number, row in enumerate(data["shapes"], 1):
        name = f"shape {number}"
        add(annotation, name, lambda r=row, n=name: _labelme_shape(r, n))
    return {str(data["imagePath"]): annotation}


def _labelme_shape(row, name):
    category = str(row.get("label") or "")
    kind, points = row.get("shape_type") or "polygon", row.get("points")
    if kind == "polygon":
        return ring(name, points, category)
    if kind in ("point", "line", "linestrip", "points"):
        return None
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return rectangle(name, x1, y1, x2, y2, category)
    if kind == "circle":  # its centre and a point on it
        return ellipse(name, (x1, y1), [np.hypot(x2 - x1, y2 - y1)] * 2, category=category)
    if kind == "mask":
        return mask(name, int(x1), int(y1), _png_mask(row["mask"], name), category)
    raise ValueError(f"a shape of type {kind!r}")


def _png_mask(text, name):
    from nucleus_course.data.read import read_pixels

    try:
        return read_pixels(base64.b64decode(text), name, mask=True).values > 0
    except (binascii.Error, UserError) as error:
        raise ValueError(str(error)) from None


# ---------------------------------------------------------------- VGG Image Annotator


def _via_rows(data):
    """The images of an annotation file or of a VIA 2 project."""
    if not isinstance(data, dict):
        return []
    images = data.get("_via_img_metadata", data)
    return list(images.values()) if isinstance(images, dict) else []


def read_via(data, file):
    """VIA 1 and 2: polygons, rectangles, circles and ellipses; an image without regions has no nuclei."""
    found = {}
    for row in _via_rows(data):
        name = str(row["filename"])
        annotation = Annotation(file, refused=TWICE if name in found else "")
        found[name] = annotation
        regions = row["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        regions = regions if isinstance(regions, list) else [regions]
        for region in regions:
            name = (
                f"region {len(annotation.shapes) + sum(map(len, annotation.dropped.values())) + 1}"
            )
            add(annotation, name, lambda r=region, n=name: _via_shape(r, n))
    return found


def _via_shape(region, name):
    shape, about = region["shape_attributes"], region.get("region_attributes") or {}
    words = [str(value) for value in about.values() if isinstance(value, str) and value]
    kind, category = shape["name"], words[0] if len(words) == 1 else ""
    if kind in ("polygon", "polyline"):
        if kind == "polyline":
            return None
        points = np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1)
        return ring(name, points, category)
    if kind == "rect":
        x, y = shape["x"], shape["y"]
        return rectangle(name, x, y, x + shape["width"], y + shape["height"], category)
    if kind in ("circle", "ellipse"):
        radii = (shape["r"],) * 2 if kind == "circle" else (shape["rx"], shape["ry"])
        return ellipse(name, (shape["cx"], shape["cy"]), radii, shape.get("theta", 0.0), category)
    if kind == "point":
        return None
    raise ValueError(f"a region of type {kind!r}")


# ---------------------------------------------------------------- GeoJSON


def _features(data):
    """The features of a collection, of one feature, or of a list of them."""
    if isinstance(data, dict) and isinstance(data.get("features"), list):
        return data["features"]
    return [data] if isinstance(data, dict) and data.get("type") == "Feature" else (
        data if isinstance(data, list) else []
    )  # fmt: skip


def _about(feature):
    about = feature.get("properties")
    return about if isinstance(about, dict) else {}


def _kind(feature):
    kind = _about(feature).get("objectType") or OLD_QUPATH.get(str(feature.get("id")), "")
    return str(kind).casefold()


def read_geojson(data, file):
    """QuPath's objects; of cells, their nuclei. If there are detections or cells, annotations are regions and left out."""
    annotation, features = Annotation(file), _features(data)
    kinds = [_kind(feature) for feature in features]
    detected = any(kind in ("detection", "cell") for kind in kinds)
    without = [k == "cell" and not f.get("nucleusGeometry") for f, k in zip(features, kinds)]
    nuclei = kinds.count("cell") > sum(without)
    for number, (feature, kind) in enumerate(zip(features, kinds), 1):
        about = _about(feature)
        name = f"object {about.get('name') or number}"
        classified = about.get("classification")
        category = classified.get("name", "") if isinstance(classified, dict) else classified or ""
        if kind in ("tile", "root", "tma_core") or (detected and kind == "annotation"):
            annotation.drop("that are regions, not nuclei", name)
        elif nuclei and without[number - 1]:
            annotation.drop("that are cells without the outline of a nucleus", name)
        else:
            geometry = feature.get("nucleusGeometry") or feature["geometry"]
            add(annotation, name, lambda g=geometry, n=name, c=category: _geometry(g, n, str(c)))
    if sum(without) and not nuclei:
        text = f"{pluralize(sum(without), 'cell')} without the outline of a nucleus: whole cells are taken for nuclei"
        annotation.notes.append(("whole cells", text))
    return {PurePosixPath(file).stem: annotation}


def _geometry(geometry, name, category):
    kind = geometry["type"]
    if kind == "Polygon":
        parts = [geometry["coordinates"]]
    elif kind == "MultiPolygon":
        parts = geometry["coordinates"]
    elif kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return None
    else:
        raise ValueError(f"a geometry of type {kind!r}")
    rings = [np.asarray(r, np.float64)[:, :2] for part in parts for r in part]
    ring(name, rings[0])  # raises if it has too few points
    return polygon(name, [r for r in rings if len(r) > 2], category)
