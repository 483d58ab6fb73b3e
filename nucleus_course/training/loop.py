"""The training loop: stages, epochs, checkpoints, validation."""

import dataclasses
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.models.weights.folder import read_config
from nucleus_course.prediction.rescorer import Rescorer
from nucleus_course.presets import get_preset
from nucleus_course.training import run as run_config
from nucleus_course.training.checkpoint import (
    RunFolder,
    load_checkpoint,
    read_meta,
    save_checkpoint,
    snapshot,
)
from nucleus_course.training.progress import EpochWatch, Reporter
from nucleus_course.training.stages import compile_for, count_trainable

# Metrics of a validation in a log row; one of them may judge the weights.
VALIDATED = ("coco_ap", "coco_ap50", "coco_ap75", "dsb_score", "mean_mask_iou")


class TrainingDiverged(RuntimeError):
    """A loss was not finite; the last good weights are kept."""


@dataclass
class History:
    """What a training did: one dict an epoch in ``rows``, the run folder, the best validation value."""

    rows: list = field(default_factory=list)
    run: Path | None = None
    best: float | None = None
    stopped: str = ""  # why it ended before its schedule did


def train(
    model,
    dataset,
    *,
    preset=None,
    validation=None,
    run=None,
    resume=False,
    stages=None,
    epochs=None,
    minutes=None,
    validate_every=None,
    validate_metric="coco_ap",
    seed=None,
    progress=True,
    on_epoch=None,
    notes=None,
):
    """Train a Mask R-CNN stage by stage.

    Args:
        model: :class:`~nucleus_course.models.MaskRCNN`.
        dataset: :class:`~nucleus_course.data.Dataset` to learn from.
        preset: :class:`~nucleus_course.config.Preset`; by default the one of the model's name, or the one that
            ``run`` was begun with, if ``resume``; then the length is as begun, too, where none is given.
        validation: data set that ``validate_metric`` (of :data:`VALIDATED`) is measured on every
            ``validate_every`` epochs; the best weights by it are kept in ``run/weights``. Without it the last ones are.
        run: folder for config.json, log.jsonl, log.csv, checkpoint.npz and weights/; None keeps nothing.
        resume: go on from ``run``'s checkpoint: the same numbers come out as without the break.
        stages: replaces the preset's stages.
        epochs: scales the stages to this many epochs in all.
        minutes: wall time instead of ``epochs``: rates follow the share of the time that is spent. Not
            reproducible bit by bit, for a busier machine gets through fewer steps.
        seed: overrides the preset's.
        progress: show a progress bar (a line an epoch where the output is no terminal).
        on_epoch: called with the log row after each epoch; returning True stops the training.
        notes: more entries for config.json, a dict of JSON types.

    Returns:
        :class:`History`. Ctrl-C ends the training cleanly: the last whole epoch's checkpoint stays.

    Raises:
        TrainingDiverged: a loss was NaN or infinite; the model is back at its last good weights.
        UserError: the run folder is in use, or holds a training and ``resume`` is False; ``validate_metric``
            is none that is measured; both ``epochs`` and ``minutes`` are given.
    """
    if epochs is not None and minutes is not None:
        raise UserError("epochs and minutes are alternatives: give one of them")
    if validate_metric not in VALIDATED:
        raise UserError(
            f"validate_metric={validate_metric!r}: choose one of {', '.join(VALIDATED)}"
        )
    earlier = run_config.read_run_config(run) if resume and run is not None else None
    if preset is None and earlier is not None:
        preset = earlier.preset
        if stages is None and epochs is None and minutes is None:
            stages, minutes = earlier.stages, earlier.minutes
    preset = preset or get_preset(model.config.name)
    config = preset.training
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)
        preset = dataclasses.replace(preset, training=config)
    stages = scale_stages(stages or config.stages, epochs)
    total = sum(s.epochs for s in stages)
    every = config.validate_every if validate_every is None else validate_every

    folder = RunFolder(run, resume) if run is not None else None
    history = History(run=folder and folder.path)
    start, elapsed, resumed = 0, 0.0, None
    current, reporter, since = None, None, time.perf_counter()
    good = []  # (variable, value) after the last whole epoch
    try:
        if folder and resume and folder.checkpoint.exists():
            resumed = read_meta(folder.checkpoint)
            start, elapsed = resumed["epoch"], resumed["elapsed"]
            history.rows, history.best = resumed["rows"], resumed["best"]
        elif folder:
            folder.write_json(
                run_config.NAME, run_config.describe(model, dataset, preset, stages, minutes, notes)
            )
        batches = TrainingBatches(dataset, preset, epoch=start)
        reporter = Reporter(progress, total, len(batches), minutes)
        epoch = start
        # By the seconds in the log alone: the epoch that is found to be the last is then validated as such, and a resumed run agrees.
        last = epoch >= total if minutes is None else elapsed >= 60.0 * minutes
        if resumed is not None:
            # The state of the epoch's own stage: where the next epoch opens another, the loop changes over as it
            # would have without the break.
            number = min(resumed.get("number", 0), len(stages) - 1)
            moving = compile_for(model, config, stages[number].layers)
            load_checkpoint(folder.checkpoint, model)
            folder.write_log(history.rows)
            if earlier is not None:
                folder.write_json(
                    run_config.NAME, {**earlier.values, **run_config.length(stages, minutes)}
                )
            good, current = snapshot(model), number
            reporter.stage(stages[number], count_trainable(model), len(moving))
        if not last:
            model.rescorer = None  # it was fitted to the weights as they are
        while not last:
            spent = elapsed + time.perf_counter() - since
            share = min(1.0, spent / (60.0 * minutes)) if minutes else None
            number, within, part = locate(stages, epoch, share)
            if number != current:
                moving = compile_for(model, config, stages[number].layers)
                good, current = snapshot(model), number
                reporter.stage(stages[number], count_trainable(model), len(moving))
            rate = stages[number].rate_at(within, part)
            model.optimizer.learning_rate = rate
            batches.epoch = epoch
            batches.settled = (epoch / total if share is None else share) >= 1.0 - config.settle
            watch = EpochWatch(batches, reporter, bool(config.ema))
            # shuffle=False: the batches are in a seeded order, and Keras would change it by an unseeded one.
            result = model.fit(
                batches,
                epochs=epoch + 1,
                initial_epoch=epoch,
                shuffle=False,
                verbose=0,
                callbacks=[watch],
            ).history
            row = {"epoch": epoch + 1, "stage": stages[number].name, "rate": rate}
            row |= {k: float(v[-1]) for k, v in result.items() if np.ndim(v[-1]) == 0}
            if not math.isfinite(row["loss"]):
                raise TrainingDiverged(
                    f"the loss was {row['loss']} in epoch {epoch + 1}: lower the rate or the augmentation"
                )
            row |= watch.summary(config.batch_size)
            epoch += 1
            if config.ema and epoch * len(batches) < 2.0 / (1.0 - config.ema):
                restart_average(model)
            row["seconds"] = round(elapsed + time.perf_counter() - since, 1)
            last = epoch >= total if minutes is None else row["seconds"] >= 60.0 * minutes
            if validation is not None and (last or (every and epoch % every == 0)):
                with averaged(model, config):
                    row |= validate(model, validation)
                    if history.best is None or row[validate_metric] > history.best:
                        history.best = row[validate_metric]
                        if folder:
                            model.save(folder.path / "weights")
                row["seconds"] = round(elapsed + time.perf_counter() - since, 1)
                last = last or (minutes is not None and row["seconds"] >= 60.0 * minutes)
            history.rows.append(row)
            good = snapshot(model)
            if folder:
                meta = {"epoch": epoch, "elapsed": row["seconds"], "rows": history.rows, "best": history.best,
                        "stage": stages[number].name, "number": number}  # fmt: skip
                save_checkpoint(folder.checkpoint, model, meta)
                folder.write_log(history.rows)
            reporter.epoch(row)
            if on_epoch is not None and on_epoch(row):
                history.stopped = "stopped by on_epoch"
                break
    except (TrainingDiverged, KeyboardInterrupt) as reason:
        history.stopped = str(reason) or "interrupted"
        for variable, value in good:
            variable.assign(value)
        _finish(model, config, folder if good else None, history, start)
        if isinstance(reason, TrainingDiverged):
            raise
        reporter.say(
            f"stopped after epoch {len(history.rows)}"
            + ("; --resume goes on from there" if folder else "")
        )
    else:
        _finish(model, config, folder if good else None, history, start)
    finally:
        if reporter:
            reporter.close()
        if folder:
            folder.close()
    return history


def _finish(model, config, folder, history, start):
    """Leave the averaged weights in the model, and in the run's folder where no best ones are kept."""
    if config.ema and model.optimizer is not None:
        take_average(model)
    if folder and history.best is None:
        place = folder.path / "weights"
        if len(history.rows) == start and (place / "thresholds.json").exists():
            # Nothing was trained: what was chosen since then still holds.
            model.thresholds, model.rescorer = read_config(place)[1], Rescorer.load(place)
        model.save(place)


def scale_stages(stages, epochs):
    """Stages with their epochs scaled to ``epochs`` in all, at least one each while they last."""
    if epochs is None:
        return tuple(stages)
    ends = np.cumsum([s.epochs for s in stages])
    ends = np.round(ends * epochs / ends[-1]).astype(int)
    first = np.arange(1, len(stages) + 1)  # one epoch each
    ends = np.minimum(np.clip(ends, first, np.maximum(first, epochs - first[::-1] + 1)), epochs)
    counts = np.diff(np.concatenate([[0], ends]))
    return tuple(dataclasses.replace(s, epochs=int(n)) for s, n in zip(stages, counts) if n > 0)


def locate(stages, epoch, share=None):
    """(stage number, epoch within it, progress within it or None) of an epoch, or of a share of the time."""
    ends = np.cumsum([s.epochs for s in stages])
    if share is None:
        number = int(np.searchsorted(ends, epoch, side="right"))
        return number, epoch - int(ends[number] - stages[number].epochs), None
    edges = np.concatenate([[0.0], ends / ends[-1]])
    number = min(int(np.searchsorted(edges, share, side="right")) - 1, len(stages) - 1)
    part = (share - edges[number]) / (edges[number + 1] - edges[number])
    return number, epoch, part


def take_average(model):
    """Overwrite the live weights with the optimiser's averaged ones; before its first step there are none."""
    if int(model.optimizer.iterations) == 0:
        return
    model.optimizer.use_ema = True
    model.optimizer.finalize_variable_values(model.trainable_variables)
    model.optimizer.use_ema = False


def restart_average(model):
    """Begin the averaged weights again at the live ones.

    Keras starts the average at the first step, so early on it would be mostly the random start: after n steps
    that keeps a share of decay ** n. Until 2 / (1 - decay) steps are done the average is the live weights.
    """
    optimizer = model.optimizer
    for average, variable in zip(
        optimizer._model_variables_moving_average, optimizer._trainable_variables
    ):
        average.assign(variable.numpy())  # a copy: JAX may give the buffer of either away


@contextmanager
def averaged(model, config):
    """The model with its averaged weights (EMA) in place; the live ones come back afterwards."""
    if not config.ema:
        yield
        return
    live = [v.numpy() for v in model.trainable_variables]
    take_average(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, live):
            variable.assign(value)


def validate(model, dataset):
    """The metrics that a log row carries, on a whole split, at the model's thresholds."""
    from nucleus_course.evaluation import evaluate
    from nucleus_course.prediction.pipeline import predict_dataset

    report = evaluate(dataset, predict_dataset(model, dataset, progress=False), progress=False)
    return {key: report.metrics[key] for key in VALIDATED}
