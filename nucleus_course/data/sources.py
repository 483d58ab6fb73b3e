"""Which experiment each image of stage1_train comes from, and splits that hold out whole experiments.

BBBC038's files do not say where an image was made. ``splits/sources.csv`` (ids and names) was derived from the
pixels by a rule that can be checked by eye: contact sheets of each source show one stain, one magnification and one
camera. The rule is tests/data/stage1_sources.py, which the tests compare with the table.

:data:`FOLDS` says which sources each of the four splits ``source-1`` to ``source-4`` holds out. Every source is held
out once, and similar sources are spread so that three of four splits still learn from some stained tissue.
"""

import csv
from importlib.resources import files

from nucleus_course._util.errors import UserError

# Source -> description.
SOURCES = {
    "clumps-256": "fluorescence, 256 x 256: soft round nuclei in clumps on black",
    "spindles-256": "fluorescence, 256 x 256: sparse elongated nuclei, faint cell bodies",
    "mixed-256": "fluorescence, 256 x 256: small nuclei of many shapes on a raised black level",
    "tissue-256x320": "fluorescence, 256 x 320: nuclei in clusters around dark gaps",
    "crowd-260x347": "fluorescence, 260 x 347: crowded small nuclei, bright",
    "large-360": "fluorescence, 360 x 360: large smooth nuclei, high magnification",
    "noisy-512x640": "fluorescence, 512 x 640: dim nuclei in noise",
    "screen-520x696": "fluorescence, 520 x 696: a screen's even fields, black level near zero",
    "raised-520x696": "fluorescence, 520 x 696: two magnifications on a raised black level",
    "flies-603x1272": "fluorescence, 603 x 1272: whole embryos",
    "single-1040x1388": "fluorescence, 1040 x 1388: one field of large nuclei",
    "smears-1024": "grey tissue, 1024 x 1024: cell smears in transmitted light",
    "red-256x320": "pink-and-purple stain, 256 x 320: dense tissue with a red counterstain",
    "pale-256x320": "pink-and-purple stain, 256 x 320: violet nuclei on a pale ground",
    "lilac-256x320": "purple stain, 256 x 320: violet nuclei on lilac, two magnifications",
}

# Split number -> the sources that it holds out.
FOLDS = {
    1: ("lilac-256x320", "large-360", "tissue-256x320"),
    2: ("pale-256x320", "spindles-256", "noisy-512x640"),
    3: ("smears-1024", "red-256x320", "clumps-256", "screen-520x696"),
    4: ("mixed-256", "raised-520x696", "flies-603x1272", "crowd-260x347", "single-1040x1388"),
}
NAMES = tuple(f"source-{number}-{part}" for number in FOLDS for part in ("train", "validation"))


def read_sources():
    """{id: source} of stage1_train's 664 images, in the order of the ids."""
    with (files(__package__) / "splits" / "sources.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["source"] for row in csv.DictReader(file)}


def source_groups(types):
    """The group of each image for a balance by source: its experiment, or its type if that is not known.

    Args:
        types: {id: image type}.

    Returns:
        {id: group}.
    """
    sources = read_sources()
    return {image_id: sources.get(image_id, kind) for image_id, kind in types.items()}


def source_split(ids, split):
    """The ids that belong to a split such as ``source-2-validation``, in their order.

    Raises:
        UserError: none of the ids is known; the table covers stage1_train.
    """
    _, number, part = split.split("-")
    sources = read_sources()
    held = FOLDS[int(number)]
    known = [image_id for image_id in ids if image_id in sources]
    if not known:
        raise UserError(
            f"split {split!r}: none of its ids are in this data set; it is a split of stage1_train"
        )
    return tuple(i for i in known if (sources[i] in held) == (part == "validation"))
