"""Which files are images, what their ids are, and to which image a name in an annotation refers."""

import re
from collections import Counter
from pathlib import PurePosixPath

from nucleus_course.data.bbbc038 import is_junk
from nucleus_course.data.listing import ALL_ENDINGS, LABEL_ENDINGS

# What ROI Manager and users add to an image's name: whole words, or RoiSet.
SET = r"roi[_\- ]?set"
WORD = rf"(?:{SET}|rois?|annotations?)"
ADDED = (
    re.compile(rf"(?:[_\-. ]*{SET}|(?:^|[_\-. ]+){WORD})[_\-. ]*$", re.IGNORECASE),
    re.compile(rf"^{WORD}(?:[_\-. ]+|$)", re.IGNORECASE),
)


def image_like(names):
    """The paths that have an image's ending, sorted."""
    paths = [PurePosixPath(name) for name in sorted(names)]
    return [p for p in paths if p.suffix.casefold() in ALL_ENDINGS and not is_junk(p.parts)]


def images_among(names, labels, annotated):
    """The files that are images by their names.

    Args:
        names: all files.
        labels: those that are label images.
        annotated: names that the annotations use: such a file is an image, whatever its name ends in.

    Returns:
        A sorted list of names, without what other programs write beside an image or what lies in ``masks``.
    """
    paths = image_like(names)
    stems = {path.stem.casefold().removesuffix(".ome") for path in paths}
    annotated = {PurePosixPath(name.replace("\\", "/")).name for name in annotated}

    def made_from_another(path):
        stem = path.stem.casefold()
        return any(stem.endswith(e) and stem.removesuffix(e) in stems for e in LABEL_ENDINGS)

    return [
        str(path)
        for path in paths
        if str(path) not in labels
        and path.parent.name.casefold() != "masks"
        and (path.name in annotated or path.stem in annotated or not made_from_another(path))
    ]


def image_ids(images, names):
    """{image: id}, all different: the stem; the path with __ for / if several share the stem; the ending, too,
    if they lie in one folder.

    >>> image_ids(["x/a.png", "x/b.png", "x/b.tif", "y/a.png"], ["x/a.png", "x/b.png", "x/b.tif", "y/a.png"])
    {'x/a.png': 'x__a', 'y/a.png': 'y__a', 'x/b.png': 'x__b_png', 'x/b.tif': 'x__b_tif'}
    """
    uses = Counter(path.stem for path in image_like(names))
    ids = {}
    for path in map(PurePosixPath, images):
        whole = path.with_suffix("").as_posix().replace("/", "__")
        ids[str(path)] = path.stem if uses[path.stem] == 1 else whole
    shared = Counter(ids.values())
    found = {name: one for name, one in ids.items() if shared[one] == 1}
    for name in images:
        if name in found:
            continue
        first = one = f"{ids[name]}_{PurePosixPath(name).suffix[1:]}"
        number = 1
        while one in found.values():
            number += 1
            one = f"{first}_{number}"
        found[name] = one
    return found


def same(named, file, images):
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


def same_stem(file, images):
    """The images to which an annotation file's own name refers: the whole stem first, then without ``_rois``,
    ``RoiSet`` and the like at its end or its start; RoiSet.zip refers to the only image beside it."""
    stem = PurePosixPath(file).stem
    for name in (stem, *(added.sub("", stem) for added in ADDED)):
        found = same(name, file, images)
        if found:
            return found
    return []
