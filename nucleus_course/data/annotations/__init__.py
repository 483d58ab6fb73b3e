"""Annotations in other formats than BBBC038's: which format a source has, and the nuclei of its images.

    with_annotations(source, "auto")

If a source does not have BBBC038's layout, the formats of :data:`FORMATS` are recognised by content. If there is
one, it is used; if there are several, the user has to choose.
"""

import json
import re
from collections import Counter
from pathlib import PurePosixPath

from nucleus_course._util.errors import UserError
from nucleus_course.data.annotations import imagej, json_formats
from nucleus_course.data.annotations.shapes import nuclei_first
from nucleus_course.data.bbbc038 import LABEL_ENDING, READ, ImageFiles, is_junk
from nucleus_course.data.files import decode_npy
from nucleus_course.data.lint import REFUSED, Issue
from nucleus_course.data.listing import ALL_ENDINGS, LABEL_ENDINGS

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
MOST = 1 << 30  # bytes of an annotation file
SEG = (
    "Cellpose's _seg.npy holds pickled Python objects, which are never opened here: in Cellpose choose File, "
    "Save masks as PNG/tif, which writes _cp_masks.png beside the image"
)
# What ROI Manager and users add to an image's name.
ADDED = re.compile(r"[_\-. ]*(roi[_\- ]?set|rois?|annotations?)[_\-. ]*", re.IGNORECASE)


def parse_format(text):
    """(format, categories) from a user's ``auto``, ``coco``, or ``coco:nucleus,mitosis``.

    Raises:
        UserError: an unknown format; the message lists those there are.
    """
    name, _, wanted = str(text or "auto").partition(":")
    if name != "auto" and name not in FORMATS:
        raise UserError(f"--annotations {text}: choose auto or one of {', '.join(FORMATS)}")
    return name, tuple(word.strip() for word in wanted.split(",") if word.strip())


class AnnotatedSource:
    """A :class:`~nucleus_course.data.bbbc038.Source` whose nuclei are annotated in another format.

    ``annotations`` is a line about what was read.
    """

    hint = "its annotations hold no outline of a nucleus (doctor --data says why)"

    def __init__(self, source, found, kind, wanted):
        self._source, self.path, self.synthetic = source, source.path, source.synthetic
        self.issues, self.outside = list(source.issues), source.outside
        self.entries, self._home = {}, {}
        for name in _images(source.names, found.labels):
            self._home[name] = image_id = _id(name, source.names)
            self.entries[image_id] = ImageFiles(image_id, name)
        if kind == "labels":
            for image, labels in found.labels.items():
                entry = self.entries[self._home[image]]
                entry.masks, entry.has_mask_folder = [labels], True
            files, said = sorted(found.labels.values()), ""
        else:
            self._match(found.read[kind])
            files = sorted(found.read[kind])
            try:
                said = nuclei_first(
                    (e.annotation for e in self.entries.values() if e.annotation), wanted
                )
            except ValueError as error:
                raise UserError(f"{self.path}: {error}") from None
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.annotations = f"{FORMATS[kind]} ({files[0]}{more})" + (f"; {said}" if said else "")
        self.entries = dict(sorted(self.entries.items()))

    def _match(self, read):
        """Give every image its annotation; report annotations without an image."""
        for file, images in sorted(read.items()):
            for named, annotation in images.items():
                candidates = _same(named, file, self._home)
                if len(candidates) != 1:
                    text = f"annotates {named!r}, and {len(candidates) or 'no'} image{'s are' * bool(candidates)} there by that name"
                    self.issues.append(Issue("", file, "annotation without image", text, REFUSED))
                    continue
                entry = self.entries[self._home[candidates[0]]]
                if entry.annotation is not None and entry.annotation.file != file:
                    raise UserError(
                        f"{self.path}: {entry.image} is annotated in {entry.annotation.file} and in {file}: "
                        "give the file to use as --data, or remove the other"
                    )
                entry.annotation = annotation

    @property
    def fingerprint(self):
        return self._source.fingerprint

    def read(self, name):
        return self._source.read(name)

    def close(self):
        self._source.close()


class _Found:
    """What was found: ``read`` {format: {file: {image: Annotation}}}, ``labels`` {image: label image},
    and ``unread`` {file: reason}."""

    def __init__(self):
        self.read, self.labels, self.unread = {}, {}, {}

    @property
    def formats(self):
        return list(self.read) + ["labels"] * bool(self.labels)


def with_annotations(source, asked="auto", only=None):
    """The source itself, or an :class:`AnnotatedSource` if its nuclei are annotated in another format.

    Args:
        source: :class:`~nucleus_course.data.bbbc038.Source`.
        asked: see :func:`parse_format`.
        only: name of the one annotation file to read; None for all.

    Raises:
        UserError: several formats, not the one asked for, a damaged file, or an image that two files annotate.
    """
    kind, wanted = parse_format(asked)
    own = any(entry.masks for entry in source.entries.values())
    if kind == "masks" or (kind == "auto" and own and only is None):
        return source
    found = _look(source, None if kind == "auto" else kind, only)
    if kind != "auto":
        if kind not in found.formats:
            reason = next((f": {file}: {why}" for file, why in found.unread.items()), "")
            raise UserError(f"{source.path}: holds no {FORMATS[kind]}{reason}")
    elif len(found.formats) > 1:
        listed = ", ".join(f"{FORMATS[name]} ({name})" for name in found.formats)
        raise UserError(
            f"{source.path}: annotated in several formats, {listed}: choose one with --annotations"
        )
    elif found.formats:
        kind = found.formats[0]
    else:
        for file, why in found.unread.items():
            source.hint = f"{file}: {why}"
            break
        return source
    return AnnotatedSource(source, found, kind, wanted)


def _look(source, kind, only):
    """Read every annotation file of a source, in one format or in any: :class:`_Found`."""
    found = _Found()
    if only is None and kind in (None, "labels"):
        _label_images(source, found)
    for name in sorted(source.names):
        ending = PurePosixPath(name).suffix.casefold()
        if is_junk(PurePosixPath(name).parts) or (only is not None and name != only):
            continue
        if ending in (".json", ".geojson") and kind != "imagej":
            _json(source, name, kind, found)
        elif ending in (".zip", ".roi") and kind in (None, "imagej"):
            try:
                data = source.read(name)
            except UserError as error:
                found.unread[name] = str(error)
                continue
            if data.startswith(b"Iout") or imagej.is_roi_zip(data):
                _read(
                    source,
                    found,
                    "imagej",
                    name,
                    lambda d=data, n=name: {_roi_stem(n): imagej.read_rois(d, n)},
                )
    return found


def _json(source, name, kind, found):
    data = source.read(name)
    if len(data) > MOST:
        raise UserError(f"{name}: too large for an annotation file ({len(data) >> 20} MB)")
    try:
        data = json.loads(data)  # finds the encoding, and skips a byte order mark
    except (ValueError, RecursionError) as error:
        found.unread[name] = f"not JSON ({error})"
        return
    for one, (is_it, read) in JSON.items():
        if kind in (None, one) and is_it(data):
            _read(source, found, one, name, lambda r=read: r(data, name))
            return
    found.unread[name] = f"JSON, but no annotations that are read ({READ})"


def _read(source, found, kind, name, read):
    try:
        found.read.setdefault(kind, {})[name] = read()
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{source.path / name}: cannot be read as {FORMATS[kind]}: {error}"
        ) from None


def _label_images(source, found):
    """Find ``a_masks.tif`` beside ``a.tif``, and Cellpose's ``a_seg.npy``."""
    stems = {}
    for name in source.names:
        path = PurePosixPath(name)
        if path.suffix.casefold() in ALL_ENDINGS and not is_junk(path.parts):
            stems[path.parent / path.stem] = name
    for path, name in sorted(stems.items()):
        seg = path.name.endswith("_seg") and name.casefold().endswith(".npy")
        stem = path.name[:-4] if seg else LABEL_ENDING.sub("", path.name)
        image = stems.get(path.parent / stem) or stems.get(path.parent / f"{stem}.ome")
        if stem == path.name or image is None:
            continue
        if seg:
            if image in found.labels:
                continue
            try:
                decode_npy(source.read(name), name)
            except UserError:
                found.unread[name] = SEG
                continue
        found.labels[image] = name


def _roi_stem(name):
    """The image's name in the name of a file of ROIs; "" for RoiSet.zip."""
    return ADDED.sub("", PurePosixPath(name).stem)


def _images(names, labels):
    """The files that are images by their names, without label images, outlines and Cellpose's arrays."""
    beside = set(labels.values())
    for name in sorted(names):
        path = PurePosixPath(name)
        stem = path.stem.casefold()
        others = stem.endswith(LABEL_ENDINGS) or path.parent.name.casefold() == "masks"
        if path.suffix.casefold() in ALL_ENDINGS and not is_junk(path.parts) and name not in beside:
            if not others:
                yield name


def _id(name, names):
    """An image's id: its stem, or its path with __ for / if several share the stem."""
    path = PurePosixPath(name)
    uses = Counter(
        PurePosixPath(n).stem for n in names if PurePosixPath(n).suffix.casefold() in ALL_ENDINGS
    )
    return path.stem if uses[path.stem] == 1 else path.with_suffix("").as_posix().replace("/", "__")


def _same(named, file, images):
    """The images to which a name in an annotation file refers: by path, else by file name, else by stem; those in
    the annotation's own folder first."""
    named = PurePosixPath(named.replace("\\", "/"))
    home = PurePosixPath(file).parent
    images = [PurePosixPath(name) for name in images]
    bare = named.stem if named.suffix.casefold() in ALL_ENDINGS else named.name
    bare = bare.removesuffix(".ome")
    ways = (
        lambda p: p in (named, home / named),
        lambda p: p.name == named.name,
        lambda p: bare in (p.stem, p.name, p.stem.removesuffix(".ome")),
    )
    for way in ways:
        found = [path for path in images if way(path)]
        near = [path for path in found if path.parent == home]
        if found:
            return [str(path) for path in (near or found)]
    if str(named) in ("", "."):  # RoiSet.zip: the only image beside it
        return [str(path) for path in images if path.parent == home] or list(map(str, images))
    return []
