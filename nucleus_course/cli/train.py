"""`nucleus-course train`: the staged training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.backend import has_bfloat16, load_backend
from nucleus_course.cli import common
from nucleus_course.cli.resume import AUGMENTS, check_as_begun, check_images
from nucleus_course.training.run import read_run_config

DEFAULT = "compact"
# The split that judges a training, by the split that it learns from.
JUDGES = {
    "train": "validation",
    "matterport-train": "matterport-validation",
    "grouped-train": "grouped-validation",
}


@common.friendly
def train(
    data: common.Data,
    split: Annotated[
        str | None,
        typer.Option(metavar="S", help=f"What to learn from (default: train): {common.SPLIT_HELP}"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="P",
            help="compact (the default), paper-resnet50, … ('nucleus-course reproduce' lists all).",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="The run folder; default: runs/<preset>."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the run folder's checkpoint, with what the run was begun with.",
        ),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W",
            help="Start from these: coco, imagenet, a shipped name, a folder or a file.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs in all; the preset's stages shrink or stretch to it."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Train for this long instead of --epochs; the rates follow the clock."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="The split that judges the weights, or 'none'; default: the partner of --split.",
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Validate every N epochs; default: the preset's."),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="preset (the default); gentle: weak changes of colour and size; plain: crops, flips and turns only.",
        ),
    ] = None,
    limit: common.Limit = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random; default: the preset's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Crops a step; default: the preset's.")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=32,
            help="Side of a crop in network pixels; default: the preset's.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps-per-epoch", metavar="N", min=1, help="Steps an epoch; default: the preset's."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads that prepare crops; default: the preset's."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 or mixed_bfloat16; default: the preset's, or float32 where this machine has no bfloat16."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first faulty image instead of leaving it out."),
    ] = False,
    backend: common.Backend = None,
) -> None:
    """Train a model on annotated images, in the preset's stages.

    \b
    Examples
      nucleus-course train --data sample --minutes 2 --run runs/first
      nucleus-course train --data data/bbbc038/stage1_train.zip --preset compact
      nucleus-course train --data D.zip --preset paper-resnet50 --weights coco
      nucleus-course train --data mine --preset compact+further --weights compact

    \b
    Writes to the run folder
      config.json          everything that was set
      log.csv, log.jsonl   a row an epoch: losses, rate, images/s, metrics
      checkpoint.npz       the full state: --resume goes on from it
      weights/             the best by validation AP, or the last without it:
                           use it as --weights DIR/weights

    Ctrl-C stops after the last whole epoch, and `train --data DATA --run DIR --resume` goes on from there, with
    the settings in config.json. Only --epochs or --minutes, --validate-every, --workers, --backend and --strict
    may be others then. A loss that is not a number stops the training with the last good weights kept.
    """
    from nucleus_course.data.splits import NAMES
    from nucleus_course.presets import get_preset

    common.check_dtype(dtype)
    if epochs is not None and minutes is not None:
        raise UserError("--epochs and --minutes are alternatives: give one of them")
    if augment is not None and augment not in AUGMENTS:
        raise UserError(f"unknown --augment '{augment}': choose one of {', '.join(AUGMENTS)}")
    options = {
        "batch_size": batch_size,
        "crop": crop,
        "seed": seed,
        "steps_per_epoch": steps,
        "dtype": dtype,
    }
    folder = Path("runs") / (preset or DEFAULT) if run is None else run
    begun, stages = read_run_config(folder) if resume else None, None
    if begun is None:
        recipe = adapted(get_preset(preset or DEFAULT), **options)
        recipe = dataclasses.replace(recipe, augment=AUGMENTS[augment or "preset"](recipe.augment))
    else:
        check_as_begun(
            begun,
            preset=preset,
            augment=augment,
            split=split,
            limit=limit,
            validation=validation,
            weights=weights,
            **options,
        )
        recipe, values = begun.preset, begun.values
        split, limit = split or begun.split, limit or values.get("limit")
        validation, weights = validation or values.get("validation"), weights or values.get("start")
        if epochs is None and minutes is None:
            stages, minutes = begun.stages, begun.minutes
    split = split or "train"
    recipe = adapted(recipe, workers=workers, validate_every=validate_every)
    whole = resume and (folder / "checkpoint.npz").exists()
    if whole and begun is not None:
        weights = None  # they are in the checkpoint
    elif resume and not whole:
        common.note(f"{folder} holds no checkpoint yet: starting from the beginning")
    backend = load_backend(backend)
    if weights is not None:
        from nucleus_course.models.weights import importers

        # A mistyped name should not cost the reading of the data.
        path, layout = importers.locate(weights, recipe.model)
        recipe = dataclasses.replace(recipe, model=importers.adapted(recipe.model, layout))
    if dtype is None and recipe.training.dtype != "float32" and not has_bfloat16(backend):
        common.note("no bfloat16 in this machine's processor: training in float32")
        recipe = adapted(recipe, dtype="float32")
    dataset = common.open_data(data, split, limit, strict, what="training on")
    if whole and begun is not None:
        check_images(begun, dataset, data, split)
    judge = JUDGES.get(split) if validation is None else validation
    judged = None
    if judge and judge != "none":
        judged = common.open_data(data, judge, what="validating on")
        if set(judged.ids) & set(dataset.ids):
            common.note(
                "note: some images are in both; their metrics say how well they were learned, not how well others will be"
            )
    elif judge is None and split not in NAMES:
        common.note("no validation split is known for a split file: name one with --validation")

    import keras

    from nucleus_course.prediction.segmenter import build
    from nucleus_course.training import TrainingDiverged
    from nucleus_course.training import train as run_training

    keras.utils.set_random_seed(recipe.training.seed)  # the initial weights
    options = {"dtype_policy": recipe.training.dtype, "seed": recipe.training.seed}
    model = build(recipe.model, recipe.thresholds, **options)
    if weights is not None:
        common.note(str(importers.load_any(model.network, path, layout)))
        model.start = weights
    elif not whole and not getattr(recipe.model, "train_norm", True):
        common.note(FROZEN.format(preset=recipe.name))
    try:
        history = run_training(
            model, dataset, preset=recipe, validation=judged, run=folder, resume=resume,
            stages=stages, epochs=epochs, minutes=minutes, notes={"split": split, "limit": limit, "validation": judge or "none"},
        )  # fmt: skip
    except TrainingDiverged as error:
        raise UserError(f"{error}; {folder}/weights has the last good ones") from None
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    best = f", best validation AP {history.best:.1f}" if history.best is not None else ""
    common.out().print(f"{pluralize(len(history.rows), 'epoch')}{best}")
    common.out().print(
        Text(f"written: {folder / 'weights'}/, {folder / 'log.csv'}"), soft_wrap=True
    )
    follow = f"evaluate --data {data} --split {judge}" if judged is not None else "predict IMAGES"
    common.out().print(
        Text(f"next: nucleus-course {follow} --weights {folder / 'weights'}"), soft_wrap=True
    )


FROZEN = (
    "warning: {preset} keeps BatchNorm's statistics as loaded, and none were: losses will be huge. "
    "Start from --weights coco or imagenet, or take a preset ending in -scratch, where BatchNorm learns"
)


def adapted(preset, **changes):
    """The preset with what the options override."""
    changes = {key: value for key, value in changes.items() if value is not None}
    crop = changes.get("crop")
    multiple = int(preset.model.pad_multiple)
    if crop is not None and crop % multiple:
        nearest = max(multiple, round(crop / multiple) * multiple)
        raise UserError(
            f"--crop {crop} is not a multiple of {multiple}, the coarsest stride of {preset.name}: try {nearest}"
        )
    return dataclasses.replace(preset, training=dataclasses.replace(preset.training, **changes))
