"""`nucleus-course train`: staged training, with or without a time limit."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import typer

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.errors import UserError
from nucleus_course._util.memory import keep_freed
from nucleus_course._util.text import pluralize
from nucleus_course.backend import devices, has_bfloat16, load_backend
from nucleus_course.cli import common
from nucleus_course.cli.builder import Builder
from nucleus_course.cli.recipe import (
    Recipe,
    adapted,
    check_images,
    check_options,
    make_recipe,
    note_shared,
)
from nucleus_course.training.time_limit import TimeLimit, fitted, largest_batch, measure_speed

FEW = 3  # with fewer validation images, metrics say little


@common.friendly
def train(
    data: str,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="S", help=f"The split to train on (default: train): {common.SPLIT_HELP}"
        ),
    ] = None,
    preset: str | None = None,
    run: Path | None = None,
    resume: bool = False,
    fine_tune: bool = False,
    mix: str | None = None,
    ordinary: str | None = None,
    weights: str | None = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01)] = None,
    time_limit: Annotated[float | None, typer.Option(min=0.1)] = None,
    reserve: Annotated[float | None, typer.Option(min=0.0)] = None,
    pack: Path | None = None,
    max_mb: Annotated[float, typer.Option(min=0.01)] = 90.0,
    validation: str | None = None,
    validate_every: Annotated[int | None, typer.Option(min=0)] = None,
    augment: str | None = None,
    limit: common.Limit = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    largest: Annotated[bool, typer.Option("--largest-batch")] = False,
    crop: Annotated[int | None, typer.Option(min=32)] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(min=1)] = None,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
    device_count: Annotated[int, typer.Option("--devices", min=1)] = 1,
    dtype: str | None = None,
    strict: bool = False,
    allow_empty: bool = False,
    annotations: str = "auto",
    reading: common.Reading = None,
    backend: str | None = None,
) -> None:
    """Train a model on annotated images, in the preset's stages.

    \b
    Examples
      nucleus-course train --data sample --minutes 2 --run runs/first
      nucleus-course train --data data/bbbc038/stage1_train.zip --preset compact
      nucleus-course train --data D.zip --preset paper-resnet50 --weights coco
      nucleus-course train --data mine --preset compact+further --weights compact
      nucleus-course train --data D.zip --time-limit 60 --pack packed
      nucleus-course train --data mine --fine-tune --mix D.zip

    \b
    Writes to the run folder
      config.json          everything that was set
      log.csv, log.jsonl   one row for each epoch: losses, rate, images/s, metrics
      checkpoint.npz       the full state, from which --resume continues
      weights/             the best by validation AP (else the last):
                           use it as --weights DIR/weights
    and with --pack, to that folder
      a model folder (half precision), report.json, predictions.json,
      curves.png, summary.json, log.csv

    Ctrl-C and SIGTERM stop the training; complete epochs are kept. `train --data DATA --run DIR --resume` continues
    from there, with the settings in config.json. Only --epochs or --minutes, --time-limit, --pack, --validate-every,
    --workers, --backend and --strict may then differ. If the loss is no longer a number, the training stops and keeps
    the last good weights.

    With --time-limit the speed is measured first, and the schedule is fitted to the time left, including --pack.
    If --epochs, --minutes or the resumed run set the length, the time limit only interrupts: repeat the command
    with --resume.

    Args:
        preset (P): compact (the default), paper-resnet50, … ('nucleus-course reproduce' lists all).
        run (DIR): The run folder. Default: runs/<preset>.
        resume: Continue from the checkpoint in the run folder, with its settings.
        fine_tune: Fine-tune trained weights (compact, or --weights) on a few images, in minutes. The trunk is frozen
            at first; some images are left out and scored before and after.
        mix (DATA): With --fine-tune: take half of the crops from these old images.
        ordinary (DATA): With --fine-tune: ordinary images to score. Default: sample.
        weights (W): Start from these weights: coco, imagenet, a shipped name, a folder or a file.
        epochs: The number of epochs; the preset's stages shrink or stretch to it.
        minutes: Train for this long instead of --epochs; the learning rates follow the clock.
        time_limit (MINUTES): Be finished after this time, with everything. Without --epochs or --minutes the schedule
            is fitted to it.
        reserve (MINUTES): The part of the time limit that is kept for --pack. Default: a quarter, at most 5.
        pack (DIR): At the end, choose thresholds, score, and write the model in half precision.
        max_mb (MB): Largest file of --pack, in MB of 10^6 bytes.
        validation (S): The split that the best weights are chosen on, or 'none'. Default: the partner of --split.
        validate_every (N): Validate every N epochs; 0: only at the end. Default: the preset's, 0 with --time-limit.
        augment (A): preset (the default); gentle: weak changes of colour and size; plain: crops, flips and
            turns only.
        seed: Seed of everything random. Default: the preset's.
        batch_size (N): Crops per step. Default: the preset's.
        largest: Double the batch as long as it fits and is faster, with learning rates to match. Needs --time-limit.
        crop (PIXELS): Side of a crop in network pixels. Default: the preset's.
        steps_per_epoch (N): Steps per epoch. Default: the preset's.
        workers (N): Threads that prepare crops. Default: the preset's; all cores with --time-limit.
        device_count (N): The number of GPUs that share a batch.
        dtype: float32 or mixed_bfloat16. Default: the preset's; float32 if this machine has no bfloat16.
    """
    asked = SimpleNamespace(**locals())
    check_options(asked)
    keep_freed()
    if fine_tune:
        from nucleus_course.cli import fine_tune as few

        few.fine_tune(asked, load_backend(backend))
        return
    if reserve is None and pack is not None and time_limit is not None:
        reserve = min(5.0, time_limit / 4)
    clock = TimeLimit(time_limit, reserve or 0.0)
    if time_limit is not None:
        asked.workers = workers or usable_cores()
        asked.validate_every = 0 if validate_every is None else validate_every
    recipe = make_recipe(asked)
    backend = load_backend(backend)
    if backend == "jax" and time_limit is not None:
        _keep_compiled(recipe.folder)
    if dtype is None and recipe.preset.training.dtype != "float32" and not has_bfloat16(backend):
        common.note("this machine's processor has no bfloat16: training in float32")
        recipe.preset = adapted(recipe.preset, dtype="float32")
    build = Builder(recipe)  # before the data, whose reading may take long
    dataset, judged = _open(recipe, asked)
    rows, finished = _train(recipe, build, dataset, judged, clock, device_count, largest)
    if not finished:
        epoch = len(rows)
        common.say(f"not finished: repeat the command with --resume to continue from epoch {epoch}")
    elif pack is not None:
        from nucleus_course.cli.pack import write_pack

        write_pack(recipe, pack, rows, judged, max_mb, backend)


def _keep_compiled(folder: Path) -> None:
    """Let JAX cache what it compiles, so that the training and later runs do not compile again."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else the user has chosen a folder
        jax.config.update("jax_compilation_cache_dir", str((folder / "compiled").absolute()))


def _open(recipe: Recipe, asked: SimpleNamespace):
    """The training and the validation data set; None for the second if there is none."""
    wanted = asked.data, recipe.split, recipe.limit, asked.strict
    dataset = common.open_data(*wanted, "training on", **recipe.opening)
    if recipe.whole and recipe.earlier is not None:
        check_images(recipe.earlier, dataset, asked.data, recipe.split)
    if recipe.validation is None:
        return dataset, None
    judged = common.open_data(asked.data, recipe.validation, what="validating on", **recipe.opening)
    if len(judged) < FEW:
        common.note(
            f"note: metrics of {pluralize(len(judged), 'image')} say little: --fine-tune leaves out three in ten, "
            "--validation can name others"
        )
    note_shared(dataset, judged)
    return dataset, judged


def _train(recipe: Recipe, build: Builder, dataset, judged, clock: TimeLimit, count: int, largest):
    """Train until the schedule or the time is over: (log rows, whether the schedule is over)."""
    from nucleus_course.training import TrainingDiverged
    from nucleus_course.training import train as run_training
    from nucleus_course.training.distribute import data_parallel
    from nucleus_course.training.schedule import Schedule, scale_stages

    limited = clock.seconds is not None

    def after_epoch(row) -> bool:
        common.raise_if_terminated()
        return limited and clock(row)

    batch = recipe.preset.training.batch_size
    parallel = data_parallel(count, batch) if count > 1 else nullcontext()
    fit = limited and not recipe.length_given
    with parallel:
        if fit:
            _fit(recipe, build, dataset, clock, largest)
        preset = recipe.preset
        model = build(preset, quiet=False)
        clock.start()
        try:
            history = run_training(
                model, dataset, preset=preset, run=recipe.folder, resume=recipe.earlier is not None or recipe.whole,
                validation=judged if preset.training.validate_every or not limited else None,
                stages=recipe.stages, epochs=recipe.epochs, minutes=recipe.minutes,
                notes=recipe.notes, on_epoch=after_epoch,
            )  # fmt: skip
        except TrainingDiverged as error:
            raise UserError(
                f"{error}; {recipe.folder}/weights holds the last good weights"
            ) from None
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    rows = history.rows
    if not rows:
        raise UserError(
            "the time limit passed before the first epoch ended: raise --time-limit or lower --steps-per-epoch"
        )
    best = f", best validation AP {history.best:.1f}" if history.best is not None else ""
    common.say(f"{pluralize(len(rows), 'epoch')}{best}")
    common.written(f"{recipe.folder / 'weights'}/", recipe.folder / "log.csv")
    stages = scale_stages(recipe.stages or preset.training.stages, recipe.epochs)
    over = Schedule(stages, recipe.minutes).over(len(rows), rows[-1]["seconds"])
    return rows, fit or over


def _fit(recipe: Recipe, build: Builder, dataset, clock: TimeLimit, largest: bool) -> None:
    """Measure the speed, and fit the recipe's schedule to the time left."""
    import keras

    preset = recipe.preset
    if largest:
        preset, speed = largest_batch(build, dataset, preset, seconds=clock.left / 5)
    else:
        speed = measure_speed(build, dataset, preset)
    if clock.left < speed.start + 2 * speed.step:
        raise UserError(
            f"--time-limit leaves {max(0.0, clock.left):.0f} s for training, which takes {speed.start:.0f} s to start "
            f"and {speed.step:.1f} s per step: raise it"
        )
    recipe.preset, recipe.minutes = fitted(preset, clock.left, speed)
    batch, steps = recipe.preset.training.batch_size, recipe.preset.training.steps_per_epoch
    common.say(
        f"measured on {', '.join(devices(keras.backend.backend()))}: {batch / speed.step:.1f} images/s at a batch of {batch}; "
        f"{recipe.minutes:.1f} minutes of training, in epochs of {pluralize(steps, 'step')}"
    )
