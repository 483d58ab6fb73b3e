"""Data sets as the rest of the package sees them: ``load_dataset``, ``Dataset`` and ``Record``."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.data import cache
from nucleus_course.data.build import open_store
from nucleus_course.data.labels import areas_from_labels, boxes_from_labels
from nucleus_course.data.lint import NOTED, REFUSED, Issue, LintReport
from nucleus_course.data.splits import NAMES as SPLIT_NAMES
from nucleus_course.data.splits import split_ids


@dataclass(frozen=True, eq=False)
class Record:
    """One image with its truth.

    ``image`` uint8 (H, W, 3) RGB; ``labels`` int32 (H, W), 0 background and 1..n the nuclei;
    ``type`` one of :data:`~nucleus_course.data.image_types.IMAGE_TYPES`. ``deep`` holds images of more than 8 bits as
    uint16 (H, W) or (H, W, 3), see :func:`~nucleus_course.data.read.to_uint16`; else None.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray
    type: str
    deep: np.ndarray | None = None

    @property
    def raw(self):
        """The input for a model: the ``deep`` values if there are any, else ``image``."""
        return self.image if self.deep is None else self.deep

    @property
    def height(self):
        return self.image.shape[0]

    @property
    def width(self):
        return self.image.shape[1]

    @cached_property
    def count(self):
        return len(self.boxes)

    @cached_property
    def boxes(self):
        """Boxes float32 (n, 4) as (y1, x1, y2, x2) in pixels, in order of label id."""
        return boxes_from_labels(self.labels)[1]

    @cached_property
    def areas(self):
        """Pixel counts int64 (n,), in order of label id."""
        return areas_from_labels(self.labels)[1]


class Dataset:
    """The images of one source, in the order of their ids; pixels are decoded on access."""

    def __init__(self, store, ids, source, split="all", whole=None):
        self._store = store
        self._entries = store.index["images"]
        self._loaded = {} if whole is None else whole._loaded
        self._whole = whole
        self.ids = tuple(ids)
        self.source = source
        self.split = str(split) if isinstance(split, (str, Path)) else "listed"
        self.synthetic = bool(store.index["synthetic"])
        self.annotations = store.index["annotations"]  # a line on their format; "" for BBBC038's
        self.name = store.index["name"] + (" (synthetic)" if self.synthetic else "")
        self._positions = {image_id: index for index, image_id in enumerate(self.ids)}

    def __len__(self):
        return len(self.ids)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __contains__(self, image_id):
        return image_id in self._positions

    def __repr__(self):
        return f"Dataset({self.name!r}, split={self.split!r}, {len(self)} images)"

    def __getitem__(self, key):
        """The :class:`Record` at a position or with an id."""
        if isinstance(key, str):
            if key not in self._positions:
                raise KeyError(f"no image {key!r} in {self!r}")
            image_id = key
        else:
            image_id = self.ids[key]
        image, labels, *deep = self._pixels(image_id)
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        kind = self._entries[image_id]["type"]
        return Record(image_id, image, labels.astype(np.int32), kind, *deep)

    def _pixels(self, image_id):
        if image_id in self._loaded:
            return self._loaded[image_id]
        entry = self._entries[image_id]
        kinds = ("image", "labels", "raw") if entry["raw"] else ("image", "labels")
        return tuple(
            cache.decode(self._store.read(f"{entry['number']}.{kind}.png")) for kind in kinds
        )

    def preload(self, workers=None):
        """Decode everything into RAM (grey as one channel, labels as uint16: 0.4 GB for the 664 images),
        so that training does not wait for files. Subsets made afterwards share it."""
        missing = [image_id for image_id in self.ids if image_id not in self._loaded]
        with ThreadPoolExecutor(workers or usable_cores()) as pool:
            self._loaded.update(zip(missing, pool.map(self._pixels, missing)))
        return self

    def subset(self, which):
        """A :class:`Dataset` of some of these images: a list of ids, a split file, or a split name.

        A name means a split of the whole source, so ``train.subset("validation")`` is an error, not a
        tenth of the training images. Raises :class:`UserError` if nothing is left.
        """
        if isinstance(which, str) and which in SPLIT_NAMES:
            chosen = _split(self.whole, which)
        else:
            chosen = split_ids(self.ids, which)
        kept = [image_id for image_id in chosen if image_id in self]
        subset = Dataset(self._store, kept, self.source, which, self.whole)
        if not len(subset):
            raise UserError(f"split {str(which)!r}: none of its images are in {self!r}")
        return subset

    @property
    def whole(self):
        """The :class:`Dataset` of all usable images of the same source."""
        if self._whole is not None:
            return self._whole
        if set(self.ids) == set(self._entries):
            return self
        self._whole = Dataset(self._store, sorted(self._entries), self.source)
        self._whole._loaded = self._loaded
        return self._whole

    @property
    def types(self):
        """The image type of each id, without decoding anything."""
        return {image_id: self._entries[image_id]["type"] for image_id in self.ids}

    @property
    def sizes(self):
        """(height, width) of each id, without decoding anything."""
        return {image_id: tuple(self._entries[image_id]["size"]) for image_id in self.ids}

    @property
    def counts(self):
        """Number of nuclei of each id, without decoding anything."""
        return {image_id: self._entries[image_id]["count"] for image_id in self.ids}

    @cached_property
    def groups(self):
        """Group number of each id, which near-duplicates share (see duplicates.py). Only images of this
        set are compared; use the whole data set to find near-duplicates across splits."""
        from nucleus_course.data.duplicates import near_duplicate_groups

        groups = near_duplicate_groups(self)
        return {image_id: number for number, group in enumerate(groups) for image_id in group}

    @cached_property
    def lint(self):
        """The problems of these images, and of files that gave no image."""
        whole = LintReport(
            self._store.index["source"],
            len(self.ids),
            [Issue(**i) for i in self._store.index["issues"]],
            self.annotations,
        )
        return whole.for_ids(set(self.ids))


def load_dataset(
    source,
    split="all",
    *,
    strict=False,
    allow_empty=False,
    cache_dir=None,
    progress=True,
    workers=None,
    annotations="auto",
    channel=None,
    plane=None,
    time=None,
    series=None,
    level=None,
):
    """Open a data set: images with the nuclei that are annotated in them.

    ``source`` is a zip or folder in BBBC038's layout or with annotations in another format
    (docs/formats.md), an annotation file, or ``"sample"`` for the embedded synthetic images. ``annotations`` names the
    format; ``"auto"`` recognises it, and a line on standard error says which it is (``"coco:nucleus"`` also says which
    categories are nuclei). ``split`` is a split name, the path of a split file or a list of ids (see
    :func:`~nucleus_course.data.splits.split_ids`). When a source is first opened, everything is decoded with
    ``workers`` threads and a progress bar into a cache in ``cache_dir`` (see
    :mod:`~nucleus_course.data.cache`); afterwards only its index is read.

    ``channel``, ``plane``, ``time``, ``series`` and ``level`` choose what to read from files that hold several images,
    as for :func:`~nucleus_course.data.read.read_image`.

    Images that cannot be used are left out and named in ``dataset.lint``; with ``strict`` they raise an
    error. Missing annotation does not mean no nuclei: an image without a masks folder is left out, and a
    split without a single nucleus is refused, unless ``allow_empty`` says that such images have no nuclei.

    Raises :class:`UserError` for a source that is missing, empty or of another kind, a zip with
    names outside its folder, an unknown split, and a split without a usable image or nucleus.
    """
    reading = dict(channel=channel, plane=plane, time=time, series=series, level=level)
    store, path = open_store(
        source, cache_dir, progress, workers, allow_empty, annotations, reading
    )
    index = store.index
    refused = [Issue(**issue) for issue in index["issues"] if issue["action"] == REFUSED]
    outside = [issue for issue in refused if issue.kind == "outside name"]
    if outside:
        raise UserError(
            f"{path}: the archive holds {outside[0].file!r}, a path outside its folder; do not trust this archive"
        )
    if strict and refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(
            f"{path}: {refused[0].file}: {refused[0].message}{more}; correct it, or do not ask for strict"
        )
    if not index["images"]:
        reason = f"; first: {refused[0].file}: {refused[0].message}" if refused else ""
        raise UserError(f"{path}: holds no usable image{reason}")
    whole = Dataset(store, sorted(index["images"]), path)
    usable = [image_id for image_id in _split(whole, split) if image_id in index["images"]]
    if not usable:
        raise UserError(f"{path}: split {str(split)!r} holds no usable image{_few(whole)}")
    dataset = Dataset(store, usable, path, split, whole)
    if not allow_empty and not any(dataset.counts.values()):
        hint = index["hint"] or "each nucleus has a mask in <id>/masks/"
        raise UserError(
            f"{path}: no nuclei are annotated in {pluralize(len(dataset), 'image')} of split "
            f"{str(split)!r}: {hint}. If they really show none, set allow_empty=True (--allow-empty)"
        )
    if progress:
        _say(dataset, path)
    return dataset


def _say(dataset, path):
    """Print to standard error which format was recognised, what was guessed of the whole source, and what is left out."""
    refused = dataset.lint.refused
    if dataset.annotations:
        print(f"{path}: annotations: {dataset.annotations}", file=sys.stderr)
    for issue in dataset.lint.issues:
        if not issue.image_id and issue.action == NOTED:
            print(f"{path}: {issue.file}: {issue.message}", file=sys.stderr)
    for issue in refused[:10]:
        print(f"left out: {issue}", file=sys.stderr)
    if len(refused) > 10:
        print(f"left out: {len(refused) - 10} more, see dataset.lint.table()", file=sys.stderr)


def lint_dataset(
    source, *, cache_dir=None, progress=False, workers=None, annotations="auto", **reading
):
    """All problems of a source, as a :class:`LintReport`; raises only if it cannot be opened.

    Arguments as for :func:`load_dataset`; ``reading`` are its channel, plane, time, series and level.
    """
    store, path = open_store(source, cache_dir, progress, workers, False, annotations, reading)
    index = store.index
    issues = [Issue(**issue) for issue in index["issues"]]
    return LintReport(str(path), len(index["images"]), issues, index["annotations"])


def _few(whole):
    """What to do if a single image cannot be split."""
    if len(whole) > 1:
        return ""
    return "; one image cannot be split: use split 'all' (--split all) to train on it, and others to validate"


def _split(whole, split):
    """The ids of a split. It is taken over all ids, including refused images, so that one bad image does
    not move others from train to validation."""
    if str(split).startswith("grouped-"):
        return split_ids(whole.ids, split, groups=whole.groups)
    return split_ids(whole._store.index["all_ids"], split)
