"""The image files that a user names: how they are found and read, and how their results are named."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data.listing import written_name

SAMPLE = 65536  # bytes at either end of a file that identify it
BLOCKS, BLOCK = 32, 4096  # and blocks between them, evenly spaced
LONGEST = 240  # bytes of a stem: endings come on top, and file systems end at 255


@dataclass(frozen=True)
class ImageFile:
    """One input: its path, its name in predictions.json (the path relative to the folder given), and
    that name's stem, which names its results."""

    path: Path
    file_name: str
    stem: str

    def called(self, stem: str) -> ImageFile:
        """The same file with another stem; the file_name follows."""
        if stem == self.stem:
            return self
        name = stem + PurePosixPath(self.file_name).suffix
        return dataclasses.replace(self, file_name=name, stem=stem)

    def other_stems(self) -> Iterator[str]:
        """Stems to use if another image has this one's: with one folder of its path in front, with two, with a digest."""
        place = written_name(os.path.realpath(self.path))
        folders = place.replace(os.sep, "/").split("/")[:-1]
        for count in (1, 2):
            yield _short("__".join([*filter(None, folders[-count:]), self.stem]))
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.path))).hexdigest()[:8]
        yield _short(f"{self.stem}-{digest}")


def find_images(inputs: Iterable[str | Path], exclude: Path | None = None) -> list[ImageFile]:
    """Every image in the files and folders given; folders are searched recursively, in sorted order.

    Files are taken as they are. In folders, :func:`~nucleus_course.data.listing.list_images` decides which
    files are images; what it skips is reported on standard error. Skipped as well is the results folder
    ``exclude``, or, if it is the folder given, its ``labels`` and ``overlays``.

    The stem is the file's name without its ending, which in BBBC038's layout is the image id. Images that
    share a stem get another, and a file_name to match: the relative path with `__` for `/`; if that is
    shared too, with one or two parent folders in front; then with the ending (`a_png`, `a_tif`); then
    with a number. A line on standard error reports it. A stem of more than 240 bytes is shortened, with a
    digest to keep it distinct. Bytes that are not UTF-8 are written as %XX, which is said too.

    Raises:
        UserError: a path that does not exist, a zip, or no image at all.
    """
    from nucleus_course.data.containers import is_zarr
    from nucleus_course.data.listing import ENDINGS, MORE_ENDINGS, list_images

    found: dict[Path, tuple[Path, str, str]] = {}
    inputs, skipped = [Path(i) for i in inputs], []
    for given in inputs:
        if not given.exists():
            raise UserError(f"no such file or folder: {given}")
        if given.is_dir() and not is_zarr(given):
            out = [] if exclude is None else [exclude, exclude / "labels", exclude / "overlays"]
            out = [path for path in out if path.resolve() != given.resolve()]
            listing = list_images(given, out, show=False)
            root = _folders(given)
            pairs = [(p, p.relative_to(given).as_posix()) for p in listing.images]
            if listing.summary:
                skipped.append(f"{given}: {listing.summary}")
        elif given.suffix.lower() == ".zip":
            raise UserError(
                f"{given} is a zip: unpack it first, or score it with `nucleus-course evaluate --data`"
            )
        else:
            root = _folders(given.parent)
            pairs = [(given, given.name)]
        for path, name in pairs:
            found.setdefault(path.resolve(), (path, name, root))
    for line in skipped:
        print(line, file=sys.stderr)
    if not found:
        where = ", ".join(str(i) for i in inputs)
        endings = ", ".join(ENDINGS + MORE_ENDINGS)
        raise UserError(f"no images in {where}: looked for {endings}, also in subfolders")
    files = [(p, written_name(name), written_name(root)) for p, name, root in found.values()]
    stems = _stems([name for _, name, _ in files], [root for _, _, root in files])
    renamed = [s for (_, name, _), s in zip(files, stems) if s != _short(PurePosixPath(name).stem)]
    if renamed:
        example = f"{renamed[0]}" + (f" and {renamed[1]}" if len(renamed) > 1 else "")
        print(
            f"{pluralize(len(renamed), 'image')} called by path, for others have the same name: {example}"
            + (", …" if len(renamed) > 2 else ""),
            file=sys.stderr,
        )
    odd = [n for (_, n, _), (_, name, _) in zip(files, found.values()) if n != name]
    if odd:
        text = f"{pluralize(len(odd), 'image')} with a name that is not UTF-8"
        print(f"{text}: written as {odd[0]}" + (", …" if len(odd) > 1 else ""), file=sys.stderr)
    names = [PurePosixPath(name) for _, name, _ in files]
    return [
        ImageFile(path, str(name) if name.stem == stem else stem + name.suffix, stem)
        for (path, _, _), name, stem in zip(files, names, stems)
    ]


def _folders(path: Path) -> str:
    """The last two folders of a path, as ``plates/one``."""
    return "/".join(path.resolve().parts[-2:]).lstrip("/")


def fingerprint(path: str | Path) -> str:
    """A hash that identifies an image file: of its size, both its ends and blocks between them; not of its time,
    so that a copy has the same.

    For a folder (an image in zarr), of the names, sizes and times of all its files.
    """
    path, digest = Path(path), hashlib.sha256()
    if path.is_dir():
        for item in sorted(p for p in path.rglob("*") if p.is_file()):
            about = item.stat()
            line = f"{item.relative_to(path).as_posix()} {about.st_size} {about.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
        return digest.hexdigest()[:32]
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode() + file.read(SAMPLE))
        for number in range(1, BLOCKS + 1 if size > 2 * SAMPLE else 1):
            file.seek(SAMPLE + (size - 2 * SAMPLE) * number // (BLOCKS + 1))
            digest.update(file.read(BLOCK))
        if size > SAMPLE:
            file.seek(max(SAMPLE, size - SAMPLE))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:32]


def read_picture(path: Path, **wanted):
    """An image as :class:`~nucleus_course.data.files.Pixels`, read as by :func:`nucleus_course.read_image`.

    Raises:
        UserError: as read_image, and for a label image.
    """
    from nucleus_course.data.masks import looks_like_labels
    from nucleus_course.data.read import read_pixels

    pixels = read_pixels(path, **wanted)
    for line in pixels.notes:
        print(line, file=sys.stderr)
    values = pixels.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = pluralize(int(values.size - np.isfinite(values).sum()), "value")
        print(f"{path}: {count} NaN or infinite: taken as the lowest", file=sys.stderr)
    if looks_like_labels(values):
        raise UserError(f"{path}: a label image (numbers of nuclei), not a picture")
    if pixels.channels and wanted.get("plane") != "focus":  # which may differ between channels
        pixels.others = lambda: _channels(path, pixels, wanted)
    return pixels


def _channels(path, pixels, wanted):
    """Yield (name, values) of each channel of a file; one at a time is in memory."""
    from nucleus_course.data.read import read_pixels

    for number, name in enumerate(pixels.channels):
        same = number == pixels.number
        yield name, (pixels if same else read_pixels(path, **wanted | {"channel": number})).values


def _stems(names: list[str], roots: list[str]) -> list[str]:
    """A distinct stem for each path relative to its root, also on file systems that ignore case."""
    one, two = ([r if n == 2 else PurePosixPath(r).name for r in roots] for n in (1, 2))
    if len(set(roots)) == 1:
        one = two = [""] * len(names)

    def whole(i, folder=""):
        path = PurePosixPath(folder, names[i])
        return path.with_suffix("").as_posix().replace("/", "__")

    ways = (
        lambda i: PurePosixPath(names[i]).stem,
        whole,
        lambda i: whole(i, one[i]),
        lambda i: whole(i, two[i]),
        lambda i: f"{whole(i, two[i])}_{PurePosixPath(names[i]).suffix[1:]}",
    )
    stems = [""] * len(names)
    open_ = list(range(len(names)))
    for way in ways:
        for i in open_:
            stems[i] = _short(way(i))
        uses = Counter(s.casefold() for s in stems)
        open_ = [i for i in open_ if uses[stems[i].casefold()] > 1]
    taken = {s.casefold() for i, s in enumerate(stems) if i not in open_}
    for i in open_:
        base, n = stems[i], 1
        while stems[i].casefold() in taken:
            n += 1
            stems[i] = f"{base}-{n}"
        taken.add(stems[i].casefold())
    return stems


def _short(stem: str) -> str:
    """A stem of at most ``LONGEST`` bytes: a digest of the whole, and its end, where names usually differ."""
    data = os.fsencode(stem)
    if len(data) <= LONGEST:
        return stem
    digest = hashlib.sha256(data).hexdigest()[:10]
    return f"{digest}-" + data[len(digest) + 1 - LONGEST :].decode("utf-8", "ignore")
