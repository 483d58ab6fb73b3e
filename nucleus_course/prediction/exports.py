"""Label images in the formats of other programs: Fiji, QuPath, napari, and tables.

Polygons run along the corners of pixels: x and y in pixels from the image's upper left corner, as in Fiji and
QuPath. Files are written atomically.
"""

import errno
import importlib
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_folder, atomic_write
from nucleus_course.geometry.polygons import polygons_from_labels
from nucleus_course.prediction.export_images import Whole, write_ome_tiff, write_ome_zarr
from nucleus_course.prediction.measurements import check_pixel_size, check_scores, measurement_table
from nucleus_course.prediction.picture import ORANGE


@dataclass(frozen=True)
class Export:
    """What every writer takes.

    Attributes:
        stem: name of the image.
        labels: :class:`~nucleus_course.prediction.export_images.Whole`, or an object with its methods.
        ids: (N,) the labels present, rising.
        scores: (N,) float64 or None.
        pixel_size: side of a pixel in micrometres, or None.
        image: as ``labels``, the image as read; or None.
        table: {column: N values} or None.
    """

    stem: str
    labels: Any
    ids: np.ndarray
    scores: np.ndarray | None
    pixel_size: float | None
    image: Any
    table: dict | None

    def polygons(self):
        """Yield (label, pieces) as :func:`polygons_from_labels` gives them, in pixels of the image."""
        for (top, left), labels in self.labels.groups():
            for label, pieces in polygons_from_labels(labels).items():
                yield label, [[ring + (left, top) for ring in rings] for rings in pieces]

    def measurements_of(self):
        """{label: {"score": …, "quality": …}}, rounded to six decimals; unknown ones are left out."""
        known = {"score": self.scores, "quality": (self.table or {}).get("quality")}
        found = {int(label): {} for label in self.ids}
        for name, values in known.items():
            for label, value in zip(self.ids, () if values is None else values):
                found[int(label)][name] = round(float(value), 6)
        return found

    def score_of(self):
        """{label: score}, rounded to six decimals; empty if the scores are unknown."""
        if self.scores is None:
            return {}
        return {int(i): round(float(s), 6) for i, s in zip(self.ids, self.scores)}


def parse_formats(text):
    """The formats of a comma-separated list (or a sequence), each once, in the order given.

    Raises:
        UserError: an unknown format, or a package that one needs is not installed.
    """
    names = text.split(",") if isinstance(text, str) else text
    formats = tuple(dict.fromkeys(name.strip() for name in names))
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--export: unknown format '{name}'; choose of {','.join(FORMATS)}")
        _package(name)
    return formats


def write_exports(folder, stem, labels, scores, formats, pixel_size=None, image=None, table=None):
    """Write one image's nuclei in the formats of other programs.

    Args:
        folder: gets a folder for each format: ``<folder>/rois/<stem>.zip``, …, see :data:`FORMATS`.
        stem: name of the image, without an ending.
        labels: (H, W) of non-negative integers, 0 background.
        scores: (N,) floats, one for each label that occurs, in the order of the labels; None if unknown.
        formats: names from :data:`FORMATS`, or a comma-separated list.
        pixel_size: side of a pixel in micrometres, if known.
        image: the image as read, (H, W) or (H, W, C), for OME-Zarr.
        table: columns for Parquet, as from :func:`~nucleus_course.prediction.measurements.measurement_table`;
            None computes them.

    Returns:
        the paths written, a list in the order of ``formats``.

    Raises:
        UserError: invalid arguments, or a missing package.
        OSError: naming the file that cannot be written (a full disk); an earlier version of it stays.
    """
    formats = parse_formats(formats)
    labels, ids = _check_labels(labels)
    if scores is not None:
        scores = check_scores(scores, ids)
    if image is not None and np.shape(image)[:2] != labels.shape:
        raise UserError(
            f"{stem}: the image has the shape {np.shape(image)}, but its label image {labels.shape}"
        )
    if table is None and "parquet" in formats:
        table = measurement_table(labels, image, scores, pixel_size)
    image = None if image is None else Whole(image)
    size = check_pixel_size(pixel_size)
    return write_pieces(
        folder, Export(stem, Whole(labels), ids, scores, size, image, table), formats
    )


def write_pieces(folder, data, formats):
    """:func:`write_exports` for an :class:`Export`, whose pixels may be read piece by piece, as a slide's are."""
    stem, written = data.stem, []
    for name in formats:
        ending, write, _ = FORMATS[name]
        path = Path(folder) / name / f"{stem}{ending}"
        try:
            write(path, data)
        except OSError as error:  # name the file itself: the writers name a temporary one, or none
            reason = error.strerror or str(error)
            raise OSError(error.errno or errno.EIO, reason, str(path)) from error
        written.append(path)
    return written


def copy_exports(source, target, stem, new_stem):
    """Copy what :func:`write_exports` wrote for one image to another folder, under the name ``new_stem``."""
    for path in _exports_of(source, stem):
        name = path.parent.name
        copy = Path(target) / name / f"{new_stem}{FORMATS[name][0]}"
        if path.is_dir():
            with atomic_folder(copy) as place:
                shutil.copytree(path, place, dirs_exist_ok=True)
        else:
            with atomic_write(copy) as place:
                shutil.copyfile(path, place)
                if name == "parquet" and new_stem != stem:
                    _rename(place, new_stem)


def remove_exports(folder, stem):
    """Remove what :func:`write_exports` wrote for one image."""
    for path in _exports_of(folder, stem):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _exports_of(folder, stem):
    paths = (Path(folder) / name / f"{stem}{ending}" for name, (ending, _, _) in FORMATS.items())
    return [path for path in paths if path.exists()]


def _check_labels(labels):
    """Labels as (H, W) uint16 or uint32, and the ids present."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub" or not labels.size:
        raise UserError(
            f"a label image has whole numbers and the shape (H, W), not {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > 2**32 - 1:
        raise UserError("labels are 0 (background) to 4,294,967,295")
    labels = labels.astype("uint16" if labels.max() <= 65535 else "uint32")
    ids = np.unique(labels)
    return labels, ids[ids > 0]


def _package(name):
    """The package that a format needs, imported; None if it needs none."""
    package = FORMATS[name][2]
    if package is None:
        return None
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"--export {name} needs the package {package}: pip install {package} "
            "(or all of them: pip install 'nucleus-course[export]')"
        ) from None


# ---------------------------------------------------------------- polygons


def _write_rois(path, data):
    """ImageJ's ROI zip: a traced polygon per nucleus; one with holes or several pieces is a composite."""
    roifile = _package("rois")
    scores = data.score_of()

    with atomic_write(path) as place, zipfile.ZipFile(place, "w") as archive:
        for label, pieces in data.polygons():
            rings = [ring for piece in pieces for ring in piece]
            roi = _polygon(roifile, rings[0]) if len(rings) == 1 else _composite(roifile, rings)
            roi.name = str(label)
            roi.props = f"score: {scores[label]}\n" if scores else ""
            with archive.open(f"{label}.roi", "w") as file:  # no date: the same bytes each time
                file.write(roi.tobytes())


def _polygon(roifile, ring):
    roi = roifile.ImagejRoi.frompoints(ring)
    roi.roitype = roifile.ROI_TYPE.TRACED
    roi.right, roi.bottom = (int(side) for side in ring.max(axis=0))
    return roi


def _composite(roifile, rings):
    """A shape of several rings, as segments of java.awt.geom: 0 x y is a move, 1 x y a line, 4 closes the ring."""
    steps = []
    for ring in rings:
        kind = np.r_[0, np.ones(len(ring) - 1)]
        steps += [np.column_stack([kind, ring]).ravel(), [4]]
    steps = np.concatenate(steps).astype("float32")
    corners = np.concatenate(rings)
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, shape_roi_size=len(steps))
    roi.left, roi.top = (int(side) for side in corners.min(axis=0))
    roi.right, roi.bottom = (int(side) for side in corners.max(axis=0))
    roi.multi_coordinates = steps
    return roi


def _write_geojson(path, data):
    """QuPath's GeoJSON: a detection per nucleus, named by its label, with score and quality as measurements."""
    measured, comma = data.measurements_of(), ""
    with atomic_write(path) as place, open(place, "w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for label, pieces in data.polygons():
            feature = _feature(label, pieces, measured[label])
            file.write(comma + json.dumps(feature, separators=(",", ":")))
            comma = ","
        file.write("]}")


def _feature(label, pieces, measured):
    closed = [[[*map(list, ring.tolist()), ring[0].tolist()] for ring in p] for p in pieces]
    one = len(closed) == 1
    properties = {
        "objectType": "detection",
        "name": str(label),
        "classification": {"name": "Nucleus", "color": list(ORANGE)},
    }
    if measured:
        properties["measurements"] = measured
    geometry = {
        "type": "Polygon" if one else "MultiPolygon",
        "coordinates": closed[0] if one else closed,
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


# ---------------------------------------------------------------- tables


def _write_parquet(path, data):
    pa = _package("parquet")
    from pyarrow import parquet

    types = {"label": pa.int64(), "touches_edge": pa.bool_()}
    columns = {"image": pa.array([data.stem] * len(data.ids), pa.string())}
    for name, values in (data.table or {}).items():
        if name != "image":
            columns[name] = pa.array(values, types.get(name, pa.float64()))
    with atomic_write(path) as place:
        parquet.write_table(pa.table(columns), place)


def _rename(path, stem):
    """Change the image's name in a Parquet table."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    names = _package("parquet").array([stem] * len(table), table.schema.field("image").type)
    at = table.schema.get_field_index("image")
    parquet.write_table(table.set_column(at, "image", names), path)


# name -> ending, writer, optional package
FORMATS = {
    "rois": (".zip", _write_rois, "roifile"),
    "geojson": (".geojson", _write_geojson, None),
    "ome-tiff": (".ome.tif", write_ome_tiff, None),
    "ome-zarr": (".ome.zarr", write_ome_zarr, None),
    "parquet": (".parquet", _write_parquet, "pyarrow"),
}
