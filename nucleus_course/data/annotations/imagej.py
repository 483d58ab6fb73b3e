"""ImageJ's and Fiji's ROIs: ``.roi`` files and zips of them, read by roifile."""

import io
import zipfile

from nucleus_course._util.errors import UserError
from nucleus_course.data.annotations.json_formats import FEW, NO_AREA, UNREADABLE
from nucleus_course.data.annotations.shapes import Annotation, ellipse, polygon, rectangle

MOST = 1 << 20  # bytes of one ROI; a freehand outline has some thousands


def is_roi_zip(data):
    """Whether the bytes are a zip with ROIs in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.casefold().endswith(".roi") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def read_rois(data, file):
    """The :class:`~nucleus_course.data.annotations.shapes.Annotation` of the bytes of a ``.roi`` file or of a zip of them.

    Raises:
        UserError: roifile is missing, or the zip is damaged.
        ValueError: the ROIs lie on several planes.
    """
    try:
        import roifile
    except ImportError:
        raise UserError(
            f"{file}: ImageJ's ROIs need the package roifile: pip install roifile "
            "(or all of them: pip install 'nucleus-course[formats]')"
        ) from None
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [i for i in archive.infolist() if i.filename.casefold().endswith(".roi")]
            members = {i.filename: archive.read(i) for i in members if i.file_size <= MOST}
    else:
        members = {file.rpartition("/")[2]: data}
    annotation, places = Annotation(file), set()
    for name, content in members.items():
        name = f"ROI {name.removesuffix('.roi')}"
        try:
            roi = roifile.ImagejRoi.frombytes(content)
            shape = _shape(roifile, roi, name)
        except Exception:  # roifile raises many kinds on damaged files
            annotation.drop(UNREADABLE, name)
            continue
        places.add((roi.position, roi.c_position, roi.z_position, roi.t_position))
        if isinstance(shape, str):
            annotation.drop(shape, name)
        else:
            annotation.shapes.append(shape)
    if len(places) > 1:
        raise ValueError(
            f"its ROIs lie on {len(places)} planes of a stack: save those of the plane that the image shows"
        )
    return annotation


def _shape(roifile, roi, name):
    """A shape, or text that says why there is none."""
    kind, kinds = roi.roitype, roifile.ROI_TYPE
    if roi.composite or kind in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED):
        rings = [r for r in roi.coordinates(multi=True) if len(r) > 2]
        return polygon(name, rings) if rings else FEW
    if kind == kinds.RECT:
        return rectangle(name, roi.left, roi.top, roi.right, roi.bottom)
    if kind == kinds.OVAL:
        x, y = (roi.left + roi.right) / 2, (roi.top + roi.bottom) / 2
        radii = (roi.right - roi.left) / 2, (roi.bottom - roi.top) / 2
        return ellipse(name, (x, y), radii)
    return NO_AREA
