"""Which files of a folder are images: recognised by content, not by ending.

Label images, earlier results, thumbnails and hidden files are skipped, and what was skipped is reported.
All commands and the notebooks use this one lister.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.containers import is_zarr
from nucleus_course.data.files import kind_of, other_kind

JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".npy")
MORE_ENDINGS = (".czi", ".lif", ".nd2", ".zarr")
ALL_ENDINGS = ENDINGS + MORE_ENDINGS
# Files that other programs write beside their images.
LABEL_ENDINGS = (
    "_masks", "_mask", "_cp_masks", "_cp_outlines", "_outlines", "_overlay", "_label", "_labels", "_seg", "_flows",
    "_probabilities", "_simple segmentation", "_segmentation", "_thumb", "_thumbnail",
)  # fmt: skip
MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentation", "segmentations", "outlines")
NO_IMAGE = "not an image"
SHOWN = 8  # endings of files that are no images, each with an example
RESULTS = ("predictions.json", "counts.csv")  # a folder with both holds results of predict


@dataclass
class Listing:
    """The images of a folder, and what was skipped: {reason: [paths]}."""

    images: list = field(default_factory=list)
    skipped: dict = field(default_factory=dict)

    def __iter__(self):
        return iter(self.images)

    def __len__(self):
        return len(self.images)

    def skip(self, reason, path):
        self.skipped.setdefault(reason, []).append(path)

    @property
    def summary(self):
        """One line about what was skipped, or ""."""
        parts = []
        for reason, paths in self.skipped.items():
            first = {path.suffix.casefold(): path.name for path in reversed(paths)}
            names = list(first.values())[::-1] if reason == NO_IMAGE else [paths[0].name]
            names = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            parts.append(f"{pluralize(len(paths), 'file')} ({reason}: {names})")
        return "passed over: " + ", ".join(parts) if parts else ""


def list_images(folder, exclude=(), show=True):
    """All images in a folder and its subfolders, in sorted order, as a :class:`Listing`.

    Args:
        folder: links in it are followed, each folder once.
        exclude: folders to leave out.
        show: print one line on standard error about what was skipped.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    listing = Listing()
    left_out = {Path(path).resolve() for path in exclude}
    for here, folders, names in walk(folder):
        if RESULTS[0] in names and RESULTS[1] in names and here != folder:
            listing.skip("earlier results", here)
            folders.clear()
            continue
        results = RESULTS[0] in names and RESULTS[1] in names
        for name in list(folders):
            masks = name.casefold() in MASK_FOLDERS
            if (here / name).resolve() in left_out:
                folders.remove(name)
            elif is_zarr(here / name):
                listing.images.append(here / name)
                folders.remove(name)
            elif results and name in ("labels", "overlays", "ome-tiff", "ome-zarr"):
                listing.skip("earlier results", here / name)
                folders.remove(name)
            elif masks and ("images" in folders or _all_labels(here / name)):
                listing.skip("masks or label images", here / name)
                folders.remove(name)
        for name in names:
            _sort_in(listing, here / name, results)
    if show and listing.summary:
        print(f"{folder}: {listing.summary}", file=sys.stderr)
    return listing


def written_name(name):
    r"""A file's name for tables and results: bytes that are not UTF-8 as %XX, because no table can hold them.

    >>> written_name("n\udcfccleus.png"), written_name("nucleus.png")
    ('n%FCcleus.png', 'nucleus.png')
    """
    return "".join(f"%{ord(c) & 255:02X}" if "\ud800" <= c <= "\udfff" else c for c in name)


def walk(folder):
    """``os.walk`` that follows links, visits each folder once, sorts names, and leaves out hidden files and junk."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in JUNK)
        yield (
            Path(here),
            folders,
            sorted(n for n in names if not n.startswith(".") and n not in JUNK),
        )


def _sort_in(listing, path, results):
    """Add one file to the images or to what is skipped."""
    stem, ending = path.stem.casefold(), path.suffix.casefold()
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        kind = kind_of(head)
    except OSError:
        kind, head = ("unreadable" if ending in ENDINGS else ""), b""
    if not kind and ending in ENDINGS:
        listing.images.append(path)  # reading it will report what is wrong
    elif not kind:
        if not results:
            listing.skip(other_kind(head) or NO_IMAGE, path)
    elif stem.endswith(LABEL_ENDINGS) and _is_beside(path, stem):
        listing.skip("label image or outline beside its image", path)
    elif kind == "npy" and stem.endswith("_seg"):
        listing.skip("label image or outline beside its image", path)
    else:
        listing.images.append(path)


def _is_beside(path, stem):
    """Whether the image that a label image's name refers to lies beside it."""
    names = {other.stem.casefold() for other in path.parent.iterdir() if other != path}
    return any(stem.endswith(end) and stem[: -len(end)] in names for end in LABEL_ENDINGS)


def _all_labels(folder):
    """Whether the first images of a folder are label images, judged by their values."""
    from nucleus_course.data.masks import looks_like_labels
    from nucleus_course.data.read import read_pixels

    looked = 0
    for path in sorted(folder.iterdir())[:20]:
        if path.suffix.casefold() not in ENDINGS or path.name.startswith("."):
            continue
        try:
            if not looks_like_labels(read_pixels(path, mask=True).values):
                return False
        except UserError:
            continue
        looked += 1
        if looked == 3:
            break
    return looked > 0
