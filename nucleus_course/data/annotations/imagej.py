"""ImageJ's and Fiji's ROIs: ``.roi`` files and zips of them, read by roifile."""

import io
import zipfile

from nucleus_course._util.errors import UserError
from nucleus_course.data.annotations.json_formats import FEW, NO_AREA, UNREADABLE
from nucleus_course.data.annotations.shapes import Annotation, ellipse, polygon, rectangle

MOST = 1 << 20  # bytes of one ROI; a freehand outline has some thousands


def is_roi_zip(source):
    """Whether a zip, given as its bytes or its path, has ROIs in it; raises BadZipFile if it is damaged."""
    with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
        return any(name.casefold().endswith(".roi") for name in archive.namelist())


def read_rois(data, file):
    """The :class:`~nucleus_course.data.annotations.shapes.Annotation` of the bytes of a ``.roi`` file or of a zip of them.

    Raises:
        UserError: roifile is missing.
        ValueError: the ROIs lie on several planes.
        BadZipFile: the zip is damaged.
    """
    try:
        import roifile
    except ImportError:
        raise UserError(
            f"{file}: ImageJ's ROIs need the package roifile: pip install roifile "
            "(or all of them: pip install 'nucleus-course[formats]')"
        ) from None
    annotation, places, members = Annotation(file), set(), []
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for one in archive.infolist():
                if one.filename.casefold().endswith(".roi"):
                    small = one.file_size <= MOST
                    members.append((one.filename, archive.read(one) if small else None))
    else:
        members.append((file.rpartition("/")[2], data))
    for name, content in members:
        name = f"ROI {name.removesuffix('.roi')}"
        if content is None:
            annotation.drop(f"of more than {MOST >> 20} MB", name)
            continue
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
    if roi.subtype in (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.IMAGE):
        return "that are text or pictures"
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
