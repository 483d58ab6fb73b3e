"""Which images are for training and which for validation: the protocol's rule, named splits and split files.

Sort the ids; ``validation`` is every tenth of them, starting with the first, and ``train`` is the
rest. ``matterport-validation`` is the list of Matterport's nucleus sample (25 ids, all of them in
stage1_train), ``matterport-train`` everything else.

The original release of stage1_train holds six images more than the corrected one (664), which the
protocol uses. A data set that holds more than these 664 is therefore reduced to them, so that both
editions give the same splits; the other images can still be named in a list or a split file.
"""

import re
from importlib.resources import files
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course._util.tables import read_text
from nucleus_course.data.listing import ENDINGS, MORE_ENDINGS
from nucleus_course.data.sources import NAMES as SOURCE_NAMES
from nucleus_course.data.sources import read_sources, source_split

EVERY = 10
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
NAMES = (
    "all",
    "train",
    "validation",
    "test",
    "matterport-train",
    "matterport-validation",
    "grouped-train",
    "grouped-validation",
    *SOURCE_NAMES,
)


def split_ids(all_ids, split="all", *, groups=None):
    """The ids of a split, as a sorted tuple.

    ``all_ids`` are the ids of a whole data set. ``split`` is one of :data:`NAMES`, the path of a split
    file (one id per line; blank lines and lines starting with # are ignored) or a list of ids. An image's
    file name may be given for its id. ``test`` is a data set of its own (stage1_test), so it means all
    images, as ``all`` does. The grouped pair keeps near-duplicates together and needs ``groups`` (an id's
    group number); the four source pairs hold out whole experiments (:mod:`~nucleus_course.data.sources`).
    Raises :class:`UserError` for an unknown split, and for ids that the data set does not hold.
    """
    ids = tuple(sorted(set(all_ids)))
    if not isinstance(split, (str, Path)):
        return _listed(ids, list(split), "the list of ids")
    if str(split) in NAMES:
        ids = protocol_ids(ids)
    if split in ("all", "test"):
        return ids
    if split == "validation":
        return ids[::EVERY]
    if split == "train":
        return tuple(image_id for index, image_id in enumerate(ids) if index % EVERY)
    if split in ("matterport-train", "matterport-validation"):
        return _matterport(ids, split)
    if split in ("grouped-train", "grouped-validation"):
        return _grouped(ids, split, groups)
    if split in SOURCE_NAMES:
        return source_split(ids, split)
    path = Path(split).expanduser()
    if path.is_file():
        return _listed(ids, read_split_file(path), str(path))
    raise UserError(
        f"unknown split {str(split)!r}: use one of {', '.join(NAMES)}, or the path of a file with one id per line"
    )


def read_split_file(path):
    """The ids in a split file, in the order of the file, without repeats.

    Quotes around an id, as spreadsheets write them, are removed.
    """
    lines = (line.strip() for line in read_text(path).splitlines())
    lines = (line[1:-1].strip() if QUOTED.fullmatch(line) else line for line in lines)
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def protocol_ids(ids):
    """The protocol's 664 ids if all of them are among ``ids``, else ``ids`` themselves; sorted."""
    listed = set(read_split_file(files(__package__) / "splits" / "stage1-train.txt"))
    return tuple(sorted(listed)) if listed < set(ids) else tuple(sorted(ids))


def matterport_validation_ids():
    """The validation ids of Matterport's nucleus sample, in the order of that file."""
    return read_split_file(files(__package__) / "splits" / "matterport-validation.txt")


def met_sources(split):
    """The set of sources (:mod:`~nucleus_course.data.sources`) of stage1_train from which a split has images.

    Raises:
        UserError: an unknown split, or a grouped one, which needs the images.
    """
    sources = read_sources()
    return {sources[image_id] for image_id in split_ids(sources, split)}


def _listed(ids, wanted, name):
    known = set(ids)
    if not wanted:
        raise UserError(f"{name}: holds no ids")
    wanted = [_id(str(one), known) for one in wanted]
    missing = [image_id for image_id in wanted if image_id not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{name}: the data set has no image {missing[0]!r}{more}")
    return tuple(sorted(set(wanted)))


def _id(name, known):
    """The id that a name means: the name itself, or its stem if it is an image's file name."""
    path = Path(name)
    is_file = name not in known and path.suffix.casefold() in ENDINGS + MORE_ENDINGS
    return path.stem if is_file and path.stem in known else name


def _matterport(ids, split):
    listed = set(matterport_validation_ids())
    chosen = tuple(
        image_id for image_id in ids if (image_id in listed) == split.endswith("validation")
    )
    if not listed & set(ids):
        raise UserError(
            f"split {split!r}: none of Matterport's validation ids are in this data set; it is a split of stage1_train"
        )
    return chosen


def _grouped(ids, split, groups):
    """Assign whole groups of near-duplicates to one side: groups are taken in the order of their
    smallest id, and validation gets about a tenth of the images."""
    if groups is None:
        raise UserError(
            f"split {split!r} needs the groups of near-duplicates: use it with a data set"
        )
    members = {}
    for image_id in ids:
        members.setdefault(groups[image_id], []).append(image_id)
    validation, seen = set(), 0
    for group in sorted(members.values(), key=lambda group: group[0]):
        if len(validation) * EVERY < seen + 1 and len(group) * EVERY <= max(len(ids), EVERY):
            validation.update(group)
        seen += len(group)
    return tuple(
        image_id for image_id in ids if (image_id in validation) == split.endswith("validation")
    )
