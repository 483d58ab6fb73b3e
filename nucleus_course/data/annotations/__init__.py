"""Annotations in other formats than BBBC038's: which format a source has, and the nuclei of its images.

    with_annotations(source, "auto")

If a source does not have BBBC038's layout, the formats of :data:`FORMATS` are recognised by content. If there is
one, it is used; if there are several, the user has to choose.
"""

from nucleus_course._util.errors import UserError
from nucleus_course.data.annotations.find import FORMATS, look, note_others
from nucleus_course.data.annotations.names import image_ids, images_among, same, same_stem
from nucleus_course.data.annotations.shapes import Annotation, nuclei_first
from nucleus_course.data.bbbc038 import ImageFiles
from nucleus_course.data.lint import NOTED, REFUSED, Issue

__all__ = ["FORMATS", "AnnotatedSource", "parse_format", "with_annotations"]


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

    ``annotations`` is a line about what was read. ``passing`` names a file whose failure may be gone without a change
    of it, or is "".
    """

    hint = "its annotations hold no outline of a nucleus (doctor --data says why)"

    def __init__(self, source, found, kind, wanted):
        self._source, self.path, self.synthetic = source, source.path, source.synthetic
        self.issues, self.outside = list(source.issues), source.outside
        self.entries, self.passing = {}, found.passing
        read = found.read.get(kind, {})
        annotated = {name for images in read.values() for name in images}
        annotated |= {*found.labels, *found.refused} if kind == "labels" else set()
        images = images_among(source.names, found.beside, annotated)
        self._home = image_ids(images, source.names)
        for name, image_id in self._home.items():
            self.entries[image_id] = ImageFiles(image_id, name)
        said = ""
        if kind == "labels":
            self._label(found)
            files = sorted(found.beside)
        else:
            self._match(read, same_stem if kind == "imagej" else None)
            files = sorted(read) or sorted(f for f, (form, _) in found.failed.items() if form)
            said = self._categories(wanted)
        self._refuse(found)
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.annotations = f"{FORMATS[kind]} ({files[0]}{more})" + (f"; {said}" if said else "")
        self.entries = dict(sorted(self.entries.items()))

    def _label(self, found):
        """Give every image its label image, or the reason why there is none."""
        for image, image_id in self._home.items():
            entry = self.entries[image_id]
            if image in found.refused:
                file, why = found.refused[image]
                entry.annotation = Annotation(file, refused=why)
            elif image in found.labels:
                entry.masks, entry.has_mask_folder = [found.labels[image]], True

    def _match(self, read, by_stem):
        """Give every image its annotation; report annotations without an image."""
        called = {}
        for file, images in sorted(read.items()):
            for named, annotation in images.items():
                candidates = by_stem(file, self._home) if by_stem else same(named, file, self._home)
                if len(candidates) != 1:
                    text = f"annotates {named!r}, and {len(candidates) or 'no'} image{'s are' * bool(candidates)} there by that name"
                    text += ": call it like its image" if by_stem else ""
                    self.issues.append(Issue("", file, "annotation without image", text, REFUSED))
                    continue
                entry = self.entries[self._home[candidates[0]]]
                if entry.annotation is not None and entry.annotation.file != file:
                    raise UserError(
                        f"{self.path}: {entry.image} is annotated in {entry.annotation.file} and in {file}: "
                        "give the file to use as --data, or remove the other"
                    )
                if entry.annotation is not None:
                    text = f"annotated as {called[entry.image]!r} and as {named!r}: remove one, or add the missing image"
                    annotation = Annotation(file, refused=text)
                entry.annotation, called[entry.image] = annotation, named

    def _categories(self, wanted):
        """Keep the categories that are nuclei; returns a line about them, or ""."""
        found = [entry.annotation for entry in self.entries.values() if entry.annotation]
        found = [annotation for annotation in found if not annotation.refused]
        if not found:
            return ""
        try:
            return nuclei_first(found, wanted)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None

    def _refuse(self, found):
        """Name every annotation file that cannot be read, with its image if its name tells which."""
        for file, (_, why) in sorted(found.failed.items()):
            images = same_stem(file, self._home)
            if len(images) != 1 or not self._refuse_image(images[0], file, why):
                self.issues.append(Issue("", file, "unreadable annotation", why, REFUSED))
        for image, (file, why) in found.segs.items():
            self._refuse_image(image, file, why)
        for why in sorted(set(found.unread.values())):
            files = sorted(file for file, reason in found.unread.items() if reason == why)
            more = f"; {len(files) - 1} more like it" if len(files) > 1 else ""
            self.issues.append(Issue("", files[0], "not an annotation", why + more, NOTED))

    def _refuse_image(self, image, file, why):
        """Refuse an image that has no other annotation; False if it has one."""
        entry = self.entries.get(self._home.get(image))
        if entry is None or entry.annotation is not None or entry.masks:
            return False
        entry.annotation = Annotation(file, refused=why)
        return True

    @property
    def fingerprint(self):
        return self._source.fingerprint

    def read(self, name):
        return self._source.read(name)

    def close(self):
        self._source.close()


def with_annotations(source, asked="auto", only=None):
    """The source itself, or an :class:`AnnotatedSource` if its nuclei are annotated in another format.

    Args:
        source: :class:`~nucleus_course.data.bbbc038.Source`.
        asked: see :func:`parse_format`.
        only: name of the one annotation file to read; None for all.

    Raises:
        UserError: several formats, not the one asked for, or an image that two files annotate.
    """
    kind, wanted = parse_format(asked)
    own = any(entry.masks for entry in source.entries.values())
    if kind == "masks":
        return source
    if kind == "auto" and own and only is None:
        note_others(source)
        return source
    found = look(source, None if kind == "auto" else kind, only)
    if kind != "auto":
        if kind not in found.formats:
            reason = f": {found.reason}" if found.reason else ""
            raise UserError(f"{source.path}: holds no {FORMATS[kind]}{reason}")
    elif len(found.formats) > 1:
        listed = ", ".join(f"{FORMATS[name]} ({name})" for name in found.formats)
        raise UserError(
            f"{source.path}: annotated in several formats, {listed}: choose one with --annotations"
        )
    elif found.formats:
        kind = found.formats[0]
    elif only is not None:
        reason = found.reason or f"{only}: holds no annotations that are read"
        raise UserError(f"{source.path}: {reason}")
    else:
        source.hint, source.passing = found.reason or source.hint, found.passing
        for file, (_, why) in sorted(found.failed.items()) if source.entries else ():
            source.issues.append(Issue("", file, "unreadable annotation", why, REFUSED))
        return source
    return AnnotatedSource(source, found, kind, wanted)
