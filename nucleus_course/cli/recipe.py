"""The settings of `train`: the preset with the options, or with `--resume` those of the run folder."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common
from nucleus_course.config import AugmentConfig, Preset
from nucleus_course.data.splits import NAMES
from nucleus_course.presets import gentle, get_preset
from nucleus_course.training.run import RunConfig, read_run_config

DEFAULT = "compact"
AUTO = "auto"  # the default of --annotations
# Strength of the augmentation: name -> function from the preset's AugmentConfig to another.
AUGMENTS = {
    "preset": lambda augment: augment,
    "gentle": gentle,
    "plain": lambda augment: AugmentConfig.none(
        crop=True, flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, border=augment.border
    ),
}
# The validation split for each training split.
PAIRS = ("matterport", "grouped", "source-1", "source-2", "source-3", "source-4")
JUDGES = {"train": "validation"} | {f"{pair}-train": f"{pair}-validation" for pair in PAIRS}
# Options of train that are numbers and must be finite.
FINITE = ("minutes", "time_limit", "reserve", "max_mb")
# Options that become fields of TrainingConfig and cannot change within a run.
FIELDS = ("batch_size", "crop", "seed", "steps_per_epoch", "dtype")


@dataclasses.dataclass
class Recipe:
    """The settings of a training, and its folder.

    Attributes:
        preset: with the options applied.
        folder: the run folder.
        split, validation, limit: training split, validation split (None: none), number of images.
        weights: initial weights, or None.
        opening: how the data are opened: the options ``reading`` (those that were given), ``annotations`` and
            ``allow_empty``.
        stages, epochs, minutes: the length; all None for the preset's.
        earlier: the run folder's settings, if the training continues.
        whole: whether the run folder has a checkpoint to continue from.
    """

    preset: Preset
    folder: Path
    split: str
    validation: str | None
    limit: int | None
    weights: str | None
    opening: dict[str, Any]
    epochs: int | None
    minutes: float | None
    stages: tuple | None = None
    earlier: RunConfig | None = None
    whole: bool = False

    @property
    def length_given(self) -> bool:
        """Whether options or the run folder say how long to train."""
        return not self.stages is self.epochs is self.minutes is None

    @property
    def notes(self) -> dict[str, Any]:
        """Entries of config.json for :func:`check_as_begun`."""
        validation = self.validation or "none"
        own = {"split": self.split, "limit": self.limit, "validation": validation}
        return own | self.opening


def make_recipe(asked: SimpleNamespace) -> Recipe:
    """The recipe for the options of `train`; with ``asked.resume`` the run folder's.

    Raises:
        UserError: an unknown preset, or options that contradict each other or the run folder.
    """
    folder = Path("runs") / (asked.preset or DEFAULT) if asked.run is None else asked.run
    check_pack(asked.pack, folder)
    fields = {name: getattr(asked, name) for name in FIELDS}
    opening = opening_options(asked)
    same = ("split", "limit", "validation", "weights", "epochs", "minutes")
    values = {name: getattr(asked, name) for name in same}
    earlier, stages = read_run_config(folder) if asked.resume else None, None
    if earlier is None:
        preset = adapted(get_preset(asked.preset or DEFAULT), **fields)
        augment = AUGMENTS[asked.augment or "preset"](preset.augment)
        preset = dataclasses.replace(preset, augment=augment)
    else:
        given = {name: values[name] for name in ("split", "limit", "validation", "weights")}
        if isinstance(earlier.values, dict) and earlier.values.get("fine_tuned"):
            raise UserError(
                f"run folder {folder} holds a fine-tuning, which cannot be resumed: choose another --run, or delete it and "
                "repeat train --fine-tune"
            )
        how = {name: opening[name] for name in ("reading", "annotations")}
        check_as_begun(
            earlier, preset=asked.preset, augment=asked.augment, **given, **how, **fields
        )
        opening = as_begun(opening, earlier)
        preset = earlier.preset
        stored = {**earlier.values, "split": earlier.split, "weights": earlier.values.get("start")}
        values |= {name: values[name] or stored.get(name) for name in given}
        if values["epochs"] is None and values["minutes"] is None:
            stages, values["minutes"] = earlier.stages, earlier.minutes
    preset = adapted(preset, workers=asked.workers, validate_every=asked.validate_every)
    whole = asked.resume and (folder / "checkpoint.npz").exists()
    if whole and earlier is not None:
        values["weights"] = None  # they are in the checkpoint
    elif asked.resume and not whole:
        common.note(f"{folder} has no checkpoint yet: starting from the beginning")
    values["split"] = values["split"] or "train"
    if values["validation"] is None:
        values["validation"] = JUDGES.get(values["split"])
        if values["validation"] is None and values["split"] not in NAMES:
            common.note(
                "a split file has no validation split of its own: name one with --validation"
            )
    elif values["validation"] == "none":
        values["validation"] = None
    values["opening"] = opening
    return Recipe(preset, folder, stages=stages, earlier=earlier, whole=whole, **values)


def check_options(asked: SimpleNamespace) -> None:
    """Raise a UserError for options of `train` that contradict each other, before anything is read."""
    common.check_dtype(asked.dtype)
    for name in FINITE:
        if not math.isfinite(getattr(asked, name) or 0.0):
            option = name.replace("_", "-")
            raise UserError(f"--{option} {getattr(asked, name)}: give a finite number")
    if asked.epochs is not None and asked.minutes is not None:
        raise UserError("--epochs and --minutes exclude each other: give one of them")
    if asked.augment is not None and asked.augment not in AUGMENTS:
        raise UserError(f"unknown --augment '{asked.augment}': choose one of {', '.join(AUGMENTS)}")
    if asked.pack is not None and asked.validation == "none":
        raise UserError("--pack chooses thresholds and scores: it needs a --validation split")
    if not asked.fine_tune and (asked.mix or asked.ordinary):
        raise UserError("--mix and --ordinary need --fine-tune")
    if asked.largest and (asked.time_limit is None or asked.batch_size is not None):
        raise UserError("--largest-batch needs --time-limit and excludes --batch-size")
    if asked.reserve is not None and asked.pack is None:
        raise UserError("--reserve keeps time for --pack: give both, or neither")


def check_pack(pack: Path | None, folder: Path) -> None:
    """Raise a UserError for a ``--pack`` that cannot be written, before anything is trained."""
    if pack is None:
        return
    file = next((place for place in (pack, *pack.parents) if place.is_file()), None)
    if file is not None:
        raise UserError(f"--pack {pack}: {file} is a file: name a folder")
    if pack.resolve() in (folder.resolve(), (folder / "weights").resolve()):
        raise UserError(
            f"--pack {pack} belongs to the run folder {folder}, whose full weights it would replace: name another folder"
        )


def opening_options(asked: SimpleNamespace) -> dict[str, Any]:
    """The options that say how the data are opened; of ``reading`` those that were given."""
    reading = {n: value for n, value in (asked.reading or {}).items() if value is not None}
    return {
        "reading": reading,
        "annotations": asked.annotations,
        "allow_empty": asked.allow_empty,
    }


def as_begun(opening: dict[str, Any], earlier: RunConfig) -> dict[str, Any]:
    """The same options, those not given as the run was started with."""
    stored = earlier.values
    reading = {**(stored.get("reading") or {}), **opening["reading"]}
    annotations = opening["annotations"]
    if annotations == AUTO:
        annotations = stored.get("annotations", AUTO)
    allow_empty = bool(opening["allow_empty"] or stored.get("allow_empty"))
    return {"reading": reading, "annotations": annotations, "allow_empty": allow_empty}


def note_shared(dataset, judged) -> None:
    """Print a note if images are in both data sets of one source."""
    if set(judged.ids) & set(dataset.ids):
        common.note(
            "note: some images are in both; their metrics say how well they were learned, not how well the model does on new ones"
        )


def adapted(preset: Preset, **changes: Any) -> Preset:
    """The preset with the given options; None is an option that was not given."""
    changes = {key: value for key, value in changes.items() if value is not None}
    crop, multiple = changes.get("crop"), int(preset.model.pad_multiple)
    if crop is not None and crop % multiple:
        nearest = max(multiple, round(crop / multiple) * multiple)
        raise UserError(
            f"--crop {crop} is not a multiple of {multiple}, the coarsest stride of {preset.name}: try {nearest}"
        )
    return dataclasses.replace(preset, training=dataclasses.replace(preset.training, **changes))


def check_as_begun(
    earlier: RunConfig, *, preset=None, augment=None, split=None, limit=None, validation=None, weights=None,
    reading=None, annotations=AUTO, **training,
) -> None:  # fmt: skip
    """Raise a UserError for an option that contradicts a run's settings.

    None is an option that was not given. ``training`` are fields of :class:`~nucleus_course.config.TrainingConfig`.
    Settings that the run folder lacks (from older versions, or a training in Python) are not checked.
    """
    own, values = earlier.preset, earlier.values
    pairs = {"preset": (preset, own.name), "augment": (augment, _augment(own))}
    for name, given in training.items():
        stored = getattr(own.training, name)
        automatic = (name, stored) == ("steps_per_epoch", 0)  # given by the number of images
        pairs[name] = (given, None if automatic else stored)
    if "limit" in values:
        pairs["limit"] = (limit, values["limit"])
    # Two split files are compared by their ids, not their names: see `check_images`.
    if earlier.split is not None and (split in NAMES or earlier.split in NAMES):
        pairs["split"] = (split, earlier.split)
    # Validation may be switched on or off, but the best values of two data sets cannot be compared.
    if values.get("validation", "none") != "none" and validation != "none":
        pairs["validation"] = (validation, values["validation"])
    if "start" in values and not (
        weights and values["start"] and Path(weights).resolve() == Path(values["start"]).resolve()
    ):
        pairs["weights"] = (weights, values["start"])
    if "annotations" in values:
        given, stored = (None if a == AUTO else a for a in (annotations, values["annotations"]))
        pairs["annotations"] = (given, stored)
    if isinstance(values.get("reading"), dict):
        pairs |= {n: (value, values["reading"].get(n)) for n, value in (reading or {}).items()}
    for name, (given, stored) in pairs.items():
        if given is not None and given != stored:
            option = f"--{name.replace('_', '-')}"
            how = f"without {option}" if stored is None else f"with {stored}"
            raise UserError(
                f"{option} {given}: run folder {earlier.folder} was started {how}. Leave it out to continue, or choose another --run"
            )


def check_images(earlier: RunConfig, dataset, data: str, split: str) -> None:
    """Raise a UserError if a run was started on other images, also if they have the same ids."""
    was = " ".join(str(earlier.values.get(key, "")) for key in ("data", "split"))
    if not earlier.trained_on(dataset):
        raise UserError(
            f"--data {data} (split {split}) gives {len(dataset)} images, not the {earlier.values['images']} that run folder "
            f"{earlier.folder} was started on ({was}): name those, or choose another --run"
        )
    different = earlier.differs(dataset)
    if different:
        raise UserError(
            f"--data {data} (split {split}) gives other images than run folder {earlier.folder} was started on ({was}): the ids "
            f"are the same, but {different}. Name those, read as they were, or choose another --run"
        )


def _augment(preset: Preset) -> str:
    """The name in AUGMENTS of a preset's augmentation, if it has one."""
    try:
        usual = get_preset(preset.name).augment
    except UserError:  # a preset made in Python
        return "settings of its own"
    names = (name for name, change in AUGMENTS.items() if change(usual) == preset.augment)
    return next(names, "settings of its own")
