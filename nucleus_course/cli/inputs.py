"""The image files that `predict` is given: which they are, and what each one's result is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nucleus_course._util.errors import UserError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class ImageFile:
    """One input: where it is, its name in predictions.json (its path relative to the folder given), and
    that name's stem, which its results are called by."""

    path: Path
    file_name: str
    stem: str


def find_images(inputs: Iterable[str | Path], exclude: Path | None = None) -> list[ImageFile]:
    """Every image of the files and folders given, folders walked recursively in sorted order.

    A file that is named is taken whatever its suffix; in folders, files with one of ``SUFFIXES`` are.
    Hidden files, the folder ``exclude`` (where results go; where it is the folder given, the ``labels`` and
    ``overlays`` in it) and BBBC038's `masks/` beside `images/` are
    passed over. The stem is the file's name without suffix, which in BBBC038's layout is the image id.
    Where several images share one, each of them gets another, and a file_name to match: the whole
    relative path with `__` for `/`, or if they still share that, with the suffix (`a_png`, `a_tif`),
    or with a number.

    Raises:
        UserError: a path that does not exist, a zip, or no image at all.
    """
    found: dict[Path, tuple[Path, str]] = {}
    inputs = [Path(i) for i in inputs]
    for given in inputs:
        if not given.exists():
            raise UserError(f"no such file or folder: {given}")
        if given.is_dir():
            pairs = [(p, p.relative_to(given).as_posix()) for p in _walk(given, exclude)]
        elif given.suffix.lower() == ".zip":
            raise UserError(
                f"{given} is a zip: unpack it first, or score it with `nucleus-course evaluate --data`"
            )
        else:
            pairs = [(given, given.name)]
        for path, name in pairs:
            found.setdefault(path.resolve(), (path, name))
    if not found:
        where = ", ".join(str(i) for i in inputs)
        raise UserError(
            f"no images in {where}: looked for {', '.join(SUFFIXES)} files, in its subfolders too"
        )
    files = list(found.values())
    stems = _stems([name for _, name in files])
    return [
        ImageFile(path, name if PurePosixPath(name).stem == stem else stem + path.suffix, stem)
        for (path, name), stem in zip(files, stems)
    ]


def _walk(folder: Path, exclude: Path | None) -> Iterator[Path]:
    skip = set()
    if exclude is not None:
        skip = {exclude.resolve(), *(exclude.resolve() / name for name in ("labels", "overlays"))}
    for here, folders, names in os.walk(folder):
        here = Path(here)
        masks = {"masks"} if "images" in folders else set()
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".") and f not in masks and (here / f).resolve() not in skip
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield here / name


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
            stems[i] = way(PurePosixPath(names[i]))
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
