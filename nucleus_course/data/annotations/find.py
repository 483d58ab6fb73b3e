"""Which files of a source hold annotations, in which format; what cannot be read is kept with the reason."""

import json
import zipfile
from pathlib import PurePosixPath

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.annotations import imagej, json_formats
from nucleus_course.data.annotations.names import image_like
from nucleus_course.data.bbbc038 import LABEL_ENDING, READ, is_junk
from nucleus_course.data.decode import may_pass, read_bytes
from nucleus_course.data.files import decode_npy
from nucleus_course.data.lint import NOTED, Issue

# name -> description
FORMATS = {
    "masks": "masks in BBBC038's layout",
    "labels": "label images beside the images",
    "imagej": "ImageJ ROIs",
    "qupath": "QuPath GeoJSON",
    "coco": "COCO JSON",
    "labelme": "LabelMe JSON",
    "via": "VGG Image Annotator JSON",
}
JSON = {  # name -> (recognises it, reads it)
    "coco": (json_formats.is_coco, json_formats.read_coco),
    "labelme": (json_formats.is_labelme, json_formats.read_labelme),
    "qupath": (json_formats.is_geojson, json_formats.read_geojson),
    "via": (json_formats.is_via, json_formats.read_via),
}
JSON_ENDINGS = (".json", ".geojson")
MOST = 1 << 30  # bytes of an annotation file
GLANCE = 1 << 26  # bytes of a file that is looked into although masks are there
SEG = (
    "Cellpose's _seg.npy holds pickled Python objects, which are never opened here: in Cellpose choose File, "
    "Save masks as PNG/tif, which writes _cp_masks.png beside the image"
)


class Found:
    """What was found in a source.

    Attributes:
        read: {format: {file: {image: Annotation}}}.
        labels: {image: label image}.
        beside: all label images.
        refused: {image: (label image, reason)}, where the label image is not clear.
        segs: {image: (Cellpose's _seg.npy, reason)}.
        failed: {file: (format or "", reason)} of annotation files that cannot be read.
        unread: {file: reason} of other files.
        passing: a file whose failure may be gone without a change of it, or "".
    """

    def __init__(self):
        self.read, self.labels, self.beside, self.refused = {}, {}, set(), {}
        self.segs, self.failed, self.unread, self.passing = {}, {}, {}, ""

    @property
    def formats(self):
        formats = list(self.read) + ["labels"] * bool(self.labels or self.refused)
        return formats or [form for form, _ in self.failed.values() if form][:1]

    @property
    def reason(self):
        """A line on the first file that cannot be read, or ""."""
        failed = {file: why for file, (_, why) in self.failed.items()}
        failed |= dict(self.segs.values()) | self.unread
        return next((f"{file}: {why}" for file, why in failed.items()), "")

    def fail(self, file, form, error):
        self.failed[file] = form, _without(error, file)
        self.passing = self.passing or (file if may_pass(error) else "")


def _without(error, file):
    return (" ".join(str(error).split()) or type(error).__name__).removeprefix(f"{file}: ")


def look(source, kind, only):
    """Read every annotation file of a source, in one format or in any (None): :class:`Found`.

    Raises:
        UserError: a package is missing.
    """
    found = Found()
    if only is None and kind in (None, "labels"):
        _label_images(source, found)
    for name in sorted(source.names):
        ending = PurePosixPath(name).suffix.casefold()
        if is_junk(PurePosixPath(name).parts) or (only is not None and name != only):
            continue
        if ending in JSON_ENDINGS and (kind is None or kind in JSON):
            _json(source, name, kind, found)
        elif ending in (".zip", ".roi") and kind in (None, "imagej"):
            _rois(source, name, found)
    return found


def _rois(source, name, found):
    try:
        data = read_bytes(source.read, name)
    except UserError as error:
        found.fail(name, "", error)
        return
    if not data.startswith(b"Iout"):
        if name.casefold().endswith(".roi") and not data.startswith(b"PK"):
            found.failed[name] = "", "no ROI of ImageJ, or a damaged one: save it again"
            return
        try:
            if not imagej.is_roi_zip(data):
                return
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError):
            found.failed[name] = "", "a damaged zip archive: copy or save it again"
            return
    stem = PurePosixPath(name).stem
    _read(found, "imagej", name, lambda: {stem: imagej.read_rois(data, name)})


def _json(source, name, kind, found):
    try:
        data = read_bytes(source.read, name)
    except UserError as error:
        found.fail(name, "", error)
        return
    if len(data) > MOST:
        text = f"too large for an annotation file ({len(data) >> 20} MB): divide it"
        found.failed[name] = "", text
        return
    try:
        data = json.loads(data)  # finds the encoding, and skips a byte order mark
    except (ValueError, RecursionError) as error:
        found.failed[name] = "", f"not JSON ({error}): save it again"
        return
    form = _form(data)
    if form and kind in (None, form):
        _read(found, form, name, lambda: JSON[form][1](data, name))
    elif not form:
        text = f"JSON, but no annotations that are read ({READ})"
        if name.casefold().endswith(".geojson"):
            found.failed[name] = "", text
        else:
            found.unread[name] = text


def _form(data):
    """The format of parsed JSON, or ""."""
    return next((name for name, (is_it, _) in JSON.items() if is_it(data)), "")


def _read(found, form, name, read):
    try:
        images = read()
    except UserError:
        raise
    except Exception as error:  # anything may be wrong in other programs' files
        found.failed[name] = form, f"cannot be read as {FORMATS[form]}: {_without(error, name)}"
    else:
        found.read.setdefault(form, {})[name] = images


# ---------------------------------------------------------------- label images


def _label_images(source, found):
    """Find ``a_masks.tif`` beside ``a.tif``, and Cellpose's ``a_seg.npy``."""
    rivals = {}
    for name, images in label_names(source.names):
        if PurePosixPath(name).stem.endswith("_seg"):
            why = _pickled(source, name, found)
            if why:
                found.segs |= dict.fromkeys(images, (name, why))
                continue
        found.beside.add(name)
        for image in images:
            rivals.setdefault(image, []).append(name)
            others = [other for other in images if other != image]
            if others:
                text = f"the label image fits {' and '.join(others)}, too: rename one of them"
                found.refused[image] = name, text
    for image, names in rivals.items():
        if len(names) > 1:
            text = f"annotated in {' and in '.join(names)}: keep one of them"
            found.refused[image] = names[0], text
        if image not in found.refused:
            found.labels[image] = names[0]


def label_names(names):
    """(label image, the images that it may belong to), by their names."""
    stems = {}
    for path in image_like(names):
        stems.setdefault(path.parent / path.stem, []).append(str(path))
    for path, files in sorted(stems.items()):
        for name in files:
            seg = path.name.endswith("_seg") and name.casefold().endswith(".npy")
            stem = path.name[:-4] if seg else LABEL_ENDING.sub("", path.name)
            images = stems.get(path.parent / stem, []) + stems.get(path.parent / f"{stem}.ome", [])
            if stem != path.name and images:
                yield name, images


def _pickled(source, name, found):
    """Why a NumPy file is no label image, or ""."""
    try:
        data = read_bytes(source.read, name)
    except UserError as error:
        found.passing = found.passing or (name if may_pass(error) else "")
        return _without(error, name)
    try:
        decode_npy(data, name)
    except UserError as error:
        return SEG if ": holds " in str(error) else _without(error, name)
    return ""


# ---------------------------------------------------------------- beside masks


def note_others(source):
    """Note annotations that are not used, because the source has masks in BBBC038's layout."""
    others, large = {}, []
    names = sorted(name for name in source.names if "/masks/" not in f"/{name}")
    for name, _ in label_names(names):
        others.setdefault("labels", []).append(name)
    for name in names:
        if name.casefold().endswith((*JSON_ENDINGS, ".zip", ".roi")):
            form = "" if is_junk(PurePosixPath(name).parts) else _glance(source, name)
            if form:
                others.setdefault(form, []).append(name)
            elif form is None:
                large.append(name)
    for form, files in others.items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        text = f"{FORMATS[form]}{more} beside masks: the masks are used; choose with --annotations {form} or masks"
        source.issues.append(Issue("", files[0], "other annotation", text, NOTED))
    if large:
        text = f"{pluralize(len(large), 'JSON file')} beside masks, too large to be looked into: the masks are used"
        source.issues.append(Issue("", large[0], "other annotation", text, NOTED))


def _glance(source, name):
    """The format of an annotation file, "" if there is none, None if the file is too large to look."""
    place = source.path / name
    try:
        if name.casefold().endswith(".zip"):
            return "imagej" * imagej.is_roi_zip(place if place.is_file() else source.read(name))
        if place.is_file() and place.stat().st_size > GLANCE:
            return None
        data = source.read(name)
        if name.casefold().endswith(".roi"):
            return "imagej" * data.startswith(b"Iout")
        return None if len(data) > GLANCE else _form(json.loads(data))
    except Exception:  # a damaged file beside masks does not matter
        return ""
