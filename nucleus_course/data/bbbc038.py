"""The files of BBBC038's layout, in a zip or a folder.

An image is ``<id>/images/<id>.png``; each of its nuclei has a mask file in ``<id>/masks/``. Folders
above ``<id>`` (such as ``stage1_train/``) do not matter. This module finds the files and reports what is
wrong with their names; :mod:`nucleus_course.data.decode` decodes them.
"""

import contextlib
import hashlib
import os
import re
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nucleus_course._util.errors import UserError
from nucleus_course.data.containers import VENDORS, is_zarr, without_zarr
from nucleus_course.data.files import MAX_BYTES, NO_PICTURES, kind_of, other_kind
from nucleus_course.data.lint import NOTED, REFUSED, Issue
from nucleus_course.data.listing import ALL_ENDINGS, ENDINGS, JUNK, walk

SYNTHETIC_MARK = "SYNTHETIC.txt"
LAYOUT = "BBBC038's layout: <id>/images/<id>.png and one mask for each nucleus in <id>/masks/"
LABEL_ENDING = re.compile(r"_(cp_)?(masks?|labels?)$", re.IGNORECASE)
OTHER_ANNOTATIONS = (".json", ".geojson", ".roi", ".xml", ".csv", ".zip")
READ = "masks, label images, ImageJ ROIs, QuPath GeoJSON, COCO, LabelMe and VIA JSON"


@dataclass
class ImageFiles:
    """The files of one image, by name inside the source.

    Attributes:
        image: "" if there are only masks.
        rivals: how many images share the folder, if there are several and none is named after the id.
        annotation: :class:`~nucleus_course.data.annotations.shapes.Annotation`, instead of mask files.
        unread: files among the masks that are no readable image.
    """

    image_id: str
    image: str = ""
    masks: list = field(default_factory=list)
    has_mask_folder: bool = False
    rivals: int = 0
    annotation: object = None
    unread: list = field(default_factory=list)


class Source:
    """A zip or a folder: ``entries`` (id -> ImageFiles, sorted by id), ``issues`` about names,
    ``read(name)`` (thread-safe), ``fingerprint`` (changes whenever a file changes), ``names`` of all files, where a
    zarr folder counts as one. ``read`` gives bytes, or a path for formats that need one: zarr, CZI, LIF, ND2."""

    annotations = ""

    def __init__(self, path, names, folders):
        self.path, self.names = path, names
        self.issues = []
        self.synthetic = any(PurePosixPath(name).name == SYNTHETIC_MARK for name in names)
        self.entries = self._entries(names, folders)
        self.hint = _hint(names)

    def read(self, name):
        raise NotImplementedError

    def close(self):
        pass

    def _is_picture(self, name):
        """Whether a file with an unknown ending is an image, perhaps of a kind that decoding refuses."""
        try:
            data = self.read(name)
        except Exception:  # archives fail in many ways
            return False
        if isinstance(data, Path):
            return True
        head = data[:16]
        return bool(kind_of(head)) or other_kind(head) not in ("", *NO_PICTURES)

    def _entries(self, names, folders):
        entries, homes = {}, {}
        for folder in folders:
            parts = PurePosixPath(folder).parts
            if parts and parts[-1] == "masks" and not is_junk(parts):
                self._entry(entries, homes, parts[:-1]).has_mask_folder = True
        images = {}
        for name in sorted(names):
            parts = PurePosixPath(name).parts
            if is_junk(parts) or len(parts) < 2 or parts[-2] not in ("images", "masks"):
                continue
            if Path(name).suffix.lower() not in ALL_ENDINGS and not self._is_picture(name):
                self._note(parts, name, "not an image", "not an image, ignored", NOTED)
                if parts[-2] == "masks":
                    self._entry(entries, homes, parts[:-2]).unread.append(name)
                continue
            entry = self._entry(entries, homes, parts[:-2])
            if "/".join(parts[:-2]) != homes[entry.image_id]:
                kept = homes[entry.image_id] or "."
                self._note(
                    parts,
                    name,
                    "duplicate id",
                    f"image id {entry.image_id!r} also lies in {kept}",
                    REFUSED,
                )
            elif parts[-2] == "masks":
                entry.has_mask_folder = True
                entry.masks.append(name)
            else:
                images.setdefault(entry.image_id, []).append(name)
        for image_id, found in images.items():
            named = [name for name in found if PurePosixPath(name).stem == image_id]
            entries[image_id].image = (named or found)[0]
            if not named and len(found) > 1:
                if not _pairs(entries, image_id, found):
                    entries[image_id].rivals = len(found)
                continue
            for name in found:
                if name != entries[image_id].image:
                    self._note(
                        PurePosixPath(name).parts,
                        name,
                        "extra image",
                        "a second image of the same id, ignored",
                        NOTED,
                    )
        for entry in entries.values():
            if not entry.image:
                where = f"{homes.get(entry.image_id) or '.'}/masks"
                self.issues.append(
                    Issue(
                        entry.image_id,
                        where,
                        "masks without image",
                        f"{len(entry.masks)} masks but no image",
                        REFUSED,
                    )
                )
        return dict(sorted(entries.items()))

    def _entry(self, entries, homes, home):
        image_id = home[-1] if home else source_name(self.path)
        homes.setdefault(image_id, "/".join(home))
        return entries.setdefault(image_id, ImageFiles(image_id))

    def _note(self, parts, name, kind, message, action):
        image_id = parts[-3] if len(parts) > 2 else source_name(self.path)
        self.issues.append(Issue(image_id, name, kind, message, action))


class ZipSource(Source):
    """A zip archive in BBBC038's layout; nothing is ever unpacked to disk.

    ``outside`` lists the members whose names lead out of the archive's folder.
    """

    def __init__(self, path):
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, NotImplementedError):
            raise UserError(f"{path}: not a zip archive, or damaged; download it again") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        self._lock = threading.Lock()
        self._members, self.outside, folders = {}, [], []
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")
            if is_outside(name):
                self.outside.append(info.filename)
            elif info.is_dir() or name.endswith("/"):
                folders.append(name)
            else:
                self._members[name] = info
        super().__init__(Path(path), without_zarr(self._members), folders)
        text = "a name that leads out of the archive's folder"
        self.issues += [Issue("", name, "outside name", text, REFUSED) for name in self.outside]

    def read(self, name):
        if name not in self._members:
            raise UserError(
                f"{name}: a zarr image is read from a folder, not from an archive: unpack it first"
            )
        if self._members[name].file_size > MAX_BYTES // 2:
            raise UserError(f"{name}: too large, {self._members[name].file_size / 2**30:.1f} GB")
        with self._lock:
            return self._zip.read(self._members[name])

    @property
    def fingerprint(self):
        stat = self.path.stat()
        return _digest([f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"])

    def close(self):
        self._zip.close()


class FolderSource(Source):
    """A folder in BBBC038's layout."""

    outside = ()

    def __init__(self, path):
        names, folders = [], []
        for folder, inner, files in walk(path):
            relative = folder.relative_to(path).as_posix()
            folders.append(relative)
            for name in [name for name in inner if is_zarr(folder / name)]:
                inner.remove(name)
                files.append(name)
            names += [file if relative == "." else f"{relative}/{file}" for file in files]
        super().__init__(Path(path), names, folders)
        self._names = names

    def read(self, name):
        path = self.path / name
        if path.is_dir():
            return path
        with open(path, "rb") as file:
            if kind_of(file.read(16)) in VENDORS:
                return path
        size = path.stat().st_size
        if size > MAX_BYTES // 2:
            raise UserError(f"{name}: too large, {size / 2**30:.1f} GB")
        return path.read_bytes()

    @property
    def fingerprint(self):
        lines = [str(self.path.resolve())]
        for name in sorted(self._names):
            try:
                whole = self.path / name
                for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
                    stat = os.stat(path)
                    lines.append(f"{name} {path.name} {stat.st_size} {stat.st_mtime_ns}")
            except OSError:  # a broken link: reading it as an image will report it
                lines.append(f"{name} is not there")
        return _digest(lines)


def open_source(path, annotations="auto"):
    """Open a zip or folder with images and their annotations, in any format that is read.

    Images without masks get them from a solution table beside them, if there is one. ``path`` may also be
    an annotation file, for the images in its folder. ``annotations`` names the format, see
    :func:`~nucleus_course.data.annotations.parse_format`. Raises :class:`UserError` if the source is
    missing, empty or something else.
    """
    from nucleus_course.data.annotations import with_annotations
    from nucleus_course.data.solution import with_solution

    path, only = Path(path).expanduser(), None
    if path.is_file() and path.suffix.lower() in (".json", ".geojson"):
        path, only = path.parent, path.name
    source = with_annotations(with_solution(_open(path)), annotations, only)
    if not source.entries and not source.issues:
        hint = f"; {source.hint}" if source.hint else ""
        raise UserError(f"{path}: holds nothing in {LAYOUT}{hint}")
    return source


def _open(path):
    if path.is_dir() and is_zarr(path):
        raise UserError(f"{path}: one zarr image: give the folder of it and its annotation")
    if path.is_dir():
        source = FolderSource(path)
        archives = sorted(path.glob("*.zip"))
        if not source.entries and archives:
            train = [archive for archive in archives if archive.name == "stage1_train.zip"]
            if train or len(archives) == 1:
                with contextlib.suppress(() if train else UserError):  # it is named with the rest
                    inner = ZipSource((train or archives)[0])
                    source = inner if inner.entries else source
        if not source.entries and not any(path.iterdir()):
            raise UserError(f"{path}: the folder is empty; give a zip or folder in {LAYOUT}")
    elif path.is_file():
        source = _open_file(path)
    else:
        raise UserError(
            f"{path}: no such file or folder; give a zip or folder in {LAYOUT}, or 'sample'"
        )
    return source


def _open_file(path):
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if kind_of(head):
        raise UserError(f"{path}: a single image file; give a folder in {LAYOUT}")
    if not head.startswith(b"PK") and path.suffix.lower() != ".zip":
        raise UserError(
            f"{path}: neither a folder nor a zip archive; give a zip or folder in {LAYOUT}"
        )
    return ZipSource(path)


def _pairs(entries, image_id, images):
    """Split a folder of several images, each with a mask file of its name, into one entry per image."""
    masks = {}
    for name in entries[image_id].masks:
        masks.setdefault(LABEL_ENDING.sub("", PurePosixPath(name).stem), []).append(name)
    stems = [PurePosixPath(name).stem for name in images]
    if not set(stems) & set(masks) or len(set(stems)) < len(stems) or set(stems) & set(entries):
        return False
    del entries[image_id]
    for stem, name in zip(stems, images):
        entries[stem] = ImageFiles(stem, name, masks.pop(stem, []))
        entries[stem].has_mask_folder = bool(entries[stem].masks)
    for stem, names in masks.items():
        entries.setdefault(stem, ImageFiles(stem)).masks += names
    return True


def _hint(names):
    """A hint about other files that may hold annotations: folders with other names, other formats."""
    paths = [PurePosixPath(name) for name in names]
    paths = [path for path in paths if not is_junk(path.parts)]
    homes = {path.parts[:-2] for path in paths if path.parent.name == "images"}
    for path in paths:
        other = path.parent.name
        if path.parts[:-2] in homes and other not in ("images", "masks"):
            if path.suffix.lower() in ENDINGS:
                return f"{path.parent} lies beside images: call it 'masks'"
    for path in paths:
        if path.suffix.lower() in OTHER_ANNOTATIONS and path.name != "stage1_solution.csv":
            return f"{path} is not read (annotations that are: {READ})"
    return ""


def source_name(path):
    """The name of a source: a folder's whole name (``v1.2``), a file's without its ending."""
    path = Path(os.path.abspath(path))  # "." has a name too
    return path.name if path.is_dir() else path.stem


def is_outside(name):
    """True for an archive member's name that would land outside the folder it is unpacked to."""
    return name.startswith("/") or bool(re.match(r"^[A-Za-z]:", name)) or ".." in name.split("/")


def is_junk(parts):
    return any(part in JUNK or part.startswith(".") for part in parts)


def _digest(lines):
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
