"""Which experiment each image of stage1_train comes from, and splits that leave whole experiments out.

BBBC038's files do not say where an image was made. :func:`find_sources` tells it from the pixels by a rule that is
short enough to check by eye: contact sheets of each source show one stain, one magnification and one camera.

1. Size in pixels and look (:mod:`~nucleus_course.data.image_types`) name most sources: eleven of the fifteen.
2. The black level, the 5th percentile of brightness, tells two cameras of one image size apart: below 8 grey levels or not.
3. Of the dark 256 x 256 images, those whose nuclei are large for the noise of their background are the clumps.
   The measure is the estimated diameter of the nuclei (pixels) over the mean absolute difference between the
   darkest 30% of pixels and the image smoothed by a Gaussian of one pixel (grey levels): above 52 it is a clump.
4. Stained images with more red than blue (medians of the channels) are the tissue with a red counterstain; a
   ground that is green by less than 32 grey levels below blue is pale, any other lilac.
5. Near-duplicates (:mod:`~nucleus_course.data.duplicates`) stay together: a group takes the source that most of
   its images have, the first by name where two are as frequent.

The result for the 664 images is ``splits/sources.csv`` (ids and names, no pixels), so that a split needs no image.
:data:`FOLDS` says which sources each of the four splits ``source-1`` to ``source-4`` holds out: every source is
held out once, and the kinds of a type are spread so that three of four splits still learn from some stained tissue.
"""

import csv
from collections import Counter
from importlib.resources import files

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.image_types import nucleus_diameter

BLACK_LEVEL = 8.0  # grey levels, of the 5th percentile
CLUMPED = 52.0  # pixels of nucleus a grey level of background noise
PALE = 32.0  # grey levels, of blue's median above green's

# Source -> what an eye sees.
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

_BY_SIZE = {
    (260, 347): "crowd-260x347",
    (360, 360): "large-360",
    (512, 640): "noisy-512x640",
    (603, 1272): "flies-603x1272",
    (1024, 1024): "smears-1024",
    (1040, 1388): "single-1040x1388",
}


def find_sources(dataset):
    """The source of each image of stage1_train, by the rule above: {id: one of :data:`SOURCES`}.

    Args:
        dataset: :class:`~nucleus_course.data.Dataset`, all of stage1_train.

    Raises:
        UserError: an image has a size that none of stage1_train's has.
    """
    alone = {record.id: _source(record.image, record.type) for record in dataset}
    unknown = [image_id for image_id, name in alone.items() if name is None]
    if unknown:
        raise UserError(
            f"image {unknown[0]!r} is none of stage1_train's: sources are known for those alone"
        )
    members = {}
    for image_id, group in dataset.groups.items():
        members.setdefault(group, []).append(image_id)
    found = {}
    for ids in members.values():
        votes = Counter(alone[image_id] for image_id in ids)
        name = min(votes, key=lambda n: (-votes[n], n))
        found.update(dict.fromkeys(ids, name))
    return {image_id: found[image_id] for image_id in dataset.ids}


def _source(image, kind):
    """The source that one image uint8 (H, W, 3) of a type looks like; None for a size of no source."""
    size = image.shape[:2]
    if size in _BY_SIZE:
        return _BY_SIZE[size]
    grey = image.mean(axis=2, dtype=np.float32)
    if size == (256, 320):
        if not kind.endswith("stain"):
            return "tissue-256x320"
        red, green, blue = np.median(image.reshape(-1, 3), axis=0)
        if red > blue:
            return "red-256x320"
        return "pale-256x320" if blue - green < PALE else "lilac-256x320"
    raised = np.percentile(grey, 5) >= BLACK_LEVEL
    if size == (520, 696):
        return "raised-520x696" if raised else "screen-520x696"
    if size != (256, 256):
        return None
    if raised:
        return "mixed-256"
    return "clumps-256" if _clumpedness(image[..., 0]) > CLUMPED else "spindles-256"


def _clumpedness(grey):
    """Estimated nucleus diameter over the noise of the darkest 30% of an image uint8 (H, W)."""
    import cv2

    values = grey.astype(np.float32)
    dark = values <= np.percentile(values, 30)
    noise = np.abs(values - cv2.GaussianBlur(values, (0, 0), 1.0))[dark].mean()
    return nucleus_diameter(grey) / max(float(noise), 1e-3)


def read_sources():
    """The table that ships: {id: source} of stage1_train's 664 images, in the order of the ids."""
    with (files(__package__) / "splits" / "sources.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["source"] for row in csv.DictReader(file)}


def write_sources(sources, path):
    """Write {id: source} as a table with the columns id and source, in the order of the ids."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "source"))
        rows.writerows(sorted(sources.items()))


def fold_of(source):
    """The number of the split that holds a source out."""
    return next(number for number, held in FOLDS.items() if source in held)


def source_split(ids, split):
    """Those of some ids that a split such as ``source-2-validation`` holds, in the order of the ids.

    Raises:
        UserError: none of the ids is known, for the table is stage1_train's.
    """
    _, number, part = split.split("-")
    sources = read_sources()
    held = FOLDS[int(number)]
    known = [image_id for image_id in ids if image_id in sources]
    if not known:
        raise UserError(
            f"split {split!r}: none of its ids are in this data set; it is meant for stage1_train"
        )
    return tuple(i for i in known if (sources[i] in held) == (part == "validation"))
