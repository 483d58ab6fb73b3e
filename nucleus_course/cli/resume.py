"""What `--resume` goes on with: the run folder's own settings, and no option against them."""

from __future__ import annotations

from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course.config import AugmentConfig
from nucleus_course.data.splits import NAMES
from nucleus_course.presets import gentle, get_preset
from nucleus_course.training.run import RunConfig

# How much the crops vary: name -> AugmentConfig of the preset -> AugmentConfig.
AUGMENTS = {
    "preset": lambda augment: augment,
    "gentle": gentle,
    "plain": lambda augment: AugmentConfig.none(
        crop=True, flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, border=augment.border
    ),
}


def check_as_begun(
    begun: RunConfig,
    *,
    preset=None,
    augment=None,
    split=None,
    limit=None,
    validation=None,
    weights=None,
    **training,
) -> None:
    """Raise a UserError for an option that contradicts what a run was begun with.

    None is an option that was not given. ``training`` are fields of :class:`~nucleus_course.config.TrainingConfig`.
    What the run folder does not say (older versions, or a training from Python) contradicts nothing.
    """
    own, values = begun.preset, begun.values
    pairs = {"preset": (preset, own.name), "augment": (augment, _augment(own))}
    for name, given in training.items():
        stored = getattr(own.training, name)
        pairs[name] = (
            given,
            None if (name, stored) == ("steps_per_epoch", 0) else stored,
        )  # 0: as the images make
    if "limit" in values:
        pairs["limit"] = (limit, values["limit"])
    # Of two split files the ids decide, not the names: see `check_images`.
    if begun.split is not None and (split in NAMES or begun.split in NAMES):
        pairs["split"] = (split, begun.split)
    # A validation may begin or end; of two data sets' metrics no best can be told.
    if values.get("validation", "none") != "none" and validation != "none":
        pairs["validation"] = (validation, values["validation"])
    if "start" in values and not (
        weights and values["start"] and Path(weights).resolve() == Path(values["start"]).resolve()
    ):
        pairs["weights"] = (weights, values["start"])
    for name, (given, stored) in pairs.items():
        if given is not None and given != stored:
            option = f"--{name.replace('_', '-')}"
            how = f"without {option}" if stored is None else f"with {stored}"
            raise UserError(
                f"{option} {given}: run folder {begun.folder} was begun {how}; leave it out to go on, or choose another --run"
            )


def check_images(begun: RunConfig, dataset, data: str, split: str) -> None:
    """Raise a UserError where a run was begun on other images."""
    if not begun.trained_on(dataset):
        was = " ".join(str(begun.values.get(key, "")) for key in ("data", "split"))
        raise UserError(
            f"--data {data} (split {split}) gives {len(dataset)} images, and not the {begun.values['images']} that run folder "
            f"{begun.folder} was begun on ({was}): give those, or choose another --run"
        )


def _augment(preset) -> str:
    """The name in AUGMENTS of a preset's augmentation, as far as it has one."""
    try:
        usual = get_preset(preset.name).augment
    except UserError:  # a preset made in Python
        return "settings of its own"
    return next(
        (name for name, change in AUGMENTS.items() if change(usual) == preset.augment),
        "settings of its own",
    )
