"""Image files that are given: which they are, how they are read, and what results are called."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nucleus_course._util.errors import UserError

LONGEST = 240  # bytes of a stem: endings come on top, and file systems end at 255


@dataclass(frozen=True)
class ImageFile:
    """One input: where it is, its name in predictions.json (its path relative to the folder given), and
    that name's stem, which its results are called by."""

    path: Path
    file_name: str
    stem: str


def find_images(inputs: Iterable[str | Path], exclude: Path | None = None) -> list[ImageFile]:
    """Every image of the files and folders given, folders walked recursively in sorted order.

    A file that is named is taken as it is; in folders, :func:`~nucleus_course.data.listing.list_images`
    says which files are images, and what was passed over is said on standard error. So is the folder
    ``exclude``, where results go; where it is the folder given, the ``labels`` and ``overlays`` in it.
    The stem is the file's name without its ending, which in BBBC038's layout is the image id.
    Where several images share one, each of them gets another, and a file_name to match: the whole
    relative path with `__` for `/`, or if they still share that, with the ending (`a_png`, `a_tif`),
    or with a number. A stem of more than 240 bytes is cut, with some letters that tell it from others.

    Raises:
        UserError: a path that does not exist, a zip, or no image at all.
    """
    from nucleus_course.data.containers import is_zarr
    from nucleus_course.data.listing import ENDINGS, MORE_ENDINGS, list_images

    found: dict[Path, tuple[Path, str]] = {}
    inputs, skipped = [Path(i) for i in inputs], []
    for given in inputs:
        if not given.exists():
            raise UserError(f"no such file or folder: {given}")
        if given.is_dir() and not is_zarr(given):
            out = [] if exclude is None else [exclude, exclude / "labels", exclude / "overlays"]
            out = [path for path in out if path.resolve() != given.resolve()]
            listing = list_images(given, out, show=False)
            pairs = [(p, p.relative_to(given).as_posix()) for p in listing.images]
            if listing.summary:
                skipped.append(f"{given}: {listing.summary}")
        elif given.suffix.lower() == ".zip":
            raise UserError(
                f"{given} is a zip: unpack it first, or score it with `nucleus-course evaluate --data`"
            )
        else:
            pairs = [(given, given.name)]
        for path, name in pairs:
            found.setdefault(path.resolve(), (path, name))
    for line in skipped:
        print(line, file=sys.stderr)
    if not found:
        where = ", ".join(str(i) for i in inputs)
        endings = ", ".join(ENDINGS + MORE_ENDINGS)
        raise UserError(f"no images in {where}: looked for {endings}, in its subfolders too")
    files = list(found.values())
    stems = _stems([name for _, name in files])
    return [
        ImageFile(path, name if PurePosixPath(name).stem == stem else stem + path.suffix, stem)
        for (path, name), stem in zip(files, stems)
    ]


def read_picture(path: Path, **wanted):
    """An image to look at, as :class:`~nucleus_course.data.files.Pixels`: read as by
    :func:`nucleus_course.read_image`, but no label image.

    Raises:
        UserError: as read_image, and for a label image, which shows no nuclei but their numbers.
    """
    from nucleus_course.data.masks import looks_like_labels
    from nucleus_course.data.read import read_pixels

    pixels = read_pixels(path, **wanted)
    for line in pixels.notes:
        print(line, file=sys.stderr)
    if looks_like_labels(pixels.values):
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


def _stems(names: list[str]) -> list[str]:
    """A distinct stem for each relative path, also on file systems that ignore case."""
    ways = (
        lambda p: p.stem,
        lambda p: p.with_suffix("").as_posix().replace("/", "__"),
        lambda p: f"{p.with_suffix('').as_posix().replace('/', '__')}_{p.suffix[1:]}",
    )
    stems = [""] * len(names)
    open_ = list(range(len(names)))
    for way in ways:
        for i in open_:
            stems[i] = _short(way(PurePosixPath(names[i])))
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
    """A stem of at most ``LONGEST`` bytes: the end is kept, where names differ, behind a digest of the whole."""
    data = os.fsencode(stem)
    if len(data) <= LONGEST:
        return stem
    digest = hashlib.sha256(data).hexdigest()[:10]
    return f"{digest}-" + data[len(digest) + 1 - LONGEST :].decode("utf-8", "ignore")
