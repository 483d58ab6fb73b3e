"""The training loop: stages, epochs, checkpoints, validation."""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_json
from nucleus_course._util.text import pluralize
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.evaluation.report import evaluate
from nucleus_course.prediction.datasets import predict_dataset
from nucleus_course.presets import get_preset
from nucleus_course.training import run as run_config
from nucleus_course.training.average import averaged, restart_average, take_average
from nucleus_course.training.checkpoint import (
    RunFolder,
    load_checkpoint,
    read_meta,
    save_checkpoint,
    snapshot,
)
from nucleus_course.training.progress import EpochWatch, Reporter
from nucleus_course.training.schedule import Schedule, locate, scale_stages
from nucleus_course.training.stages import compile_for, count_trainable

# Validation metrics in a log row; one of them selects the best weights.
VALIDATED = ("coco_ap", "coco_ap50", "coco_ap75", "dsb_score", "mean_mask_iou")


class TrainingDiverged(RuntimeError):
    """A loss was not finite; the last good weights are kept."""


@dataclass
class History:
    """The result of a training: one dict per epoch in ``rows``, the run folder, the best validation value."""

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
    """Train a model stage by stage.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        dataset: :class:`~nucleus_course.data.Dataset` to learn from.
        preset: :class:`~nucleus_course.config.Preset`; by default the one with the model's name. With ``resume`` it is the one
            that ``run`` was started with, and so is the length if none is given.
        validation: data set that ``validate_metric`` (of :data:`VALIDATED`) is measured on every
            ``validate_every`` epochs; the best weights are kept in ``run/weights``. Without it the last ones are kept.
        run: folder for config.json, log.jsonl, log.csv, checkpoint.npz and weights/; None keeps nothing.
        resume: continue from the checkpoint in ``run``, with the same numbers as without the interruption.
        stages: replaces the preset's stages.
        epochs: scales the stages to this many epochs in all.
        minutes: wall time instead of ``epochs``; the learning rates follow the share of the time that is spent. Not
            reproducible bit by bit, because a busier machine takes fewer steps.
        seed: overrides the preset's.
        progress: show a progress bar (one line per epoch if the output is not a terminal).
        on_epoch: called with the log row after each epoch; returning True stops the training.
        notes: more entries for config.json, a dict of JSON types.

    Returns:
        :class:`History`. Ctrl-C ends the training cleanly: the checkpoint of the last complete epoch stays.

    Raises:
        TrainingDiverged: a loss was NaN or infinite; the model is back at its last good weights.
        UserError: the run folder is in use, or holds a training and ``resume`` is False; ``validate_metric``
            is unknown; both ``epochs`` and ``minutes`` are given.
    """
    if epochs is not None and minutes is not None:
        raise UserError("epochs and minutes exclude each other: give one of them")
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
    if seed is not None:
        preset = dataclasses.replace(
            preset, training=dataclasses.replace(preset.training, seed=seed)
        )
    stages = scale_stages(stages or preset.training.stages, epochs)
    schedule = Schedule(stages, minutes)
    loop = _Loop(model, preset, schedule, run, resume, progress)
    loop.validation, loop.metric, loop.on_epoch = validation, validate_metric, on_epoch
    if validate_every is not None:
        loop.every = validate_every
    try:
        loop.open(dataset, earlier, notes)
        loop.run()
    except (TrainingDiverged, KeyboardInterrupt) as reason:
        loop.stop(reason)
        if isinstance(reason, TrainingDiverged):
            raise
    else:
        loop.finish()
    finally:
        loop.close()
    return loop.history


class _Loop:
    """The state of one call of :func:`train`."""

    def __init__(self, model, preset, schedule, run, resume, progress):
        self.model, self.network = model, model.network
        self.preset, self.config, self.schedule = preset, preset.training, schedule
        self.folder = RunFolder(run, resume) if run is not None else None
        self.resume, self.progress, self.every = resume, progress, self.config.validate_every
        self.history = History(run=self.folder and self.folder.path)
        self.resumable = True
        self.start = self.epoch = self.first = 0  # epochs: at the start, now, and of the stage
        self.elapsed, self.since = 0.0, time.perf_counter()
        self.stage, self.reporter = None, None  # number of the compiled stage
        self.good = []  # (variable, value) after the last complete epoch

    @property
    def seconds(self):
        """Training time so far, including earlier parts of a resumed run."""
        return self.elapsed + time.perf_counter() - self.since

    def open(self, dataset, earlier, notes):
        """Begin, or continue from the run folder's checkpoint."""
        folder, saved = self.folder, None
        self.resumable = not (notes or {}).get("fine_tuned")
        if folder and self.resume and folder.checkpoint.exists():
            saved = read_meta(folder.checkpoint)
            if self.schedule.minutes is None and self.schedule.epochs < saved["epoch"]:
                raise UserError(
                    f"run folder {folder.path} is already trained for {pluralize(saved['epoch'], 'epoch')}: "
                    f"ask for no fewer than {saved['epoch']}, or leave the number of epochs out"
                )
            self.start = self.epoch = saved["epoch"]
            self.first = saved.get("first", 0)
            self.elapsed = saved["elapsed"]
            self.history.rows, self.history.best = saved["rows"], saved["best"]
        elif folder:
            about = (self.preset, self.schedule.stages, self.schedule.minutes, notes)
            write_json(
                folder.path / run_config.NAME, run_config.describe(self.model, dataset, *about)
            )
        self.batches = TrainingBatches(dataset, self.preset, epoch=self.start)
        self.reporter = Reporter(
            self.progress, self.schedule.epochs, len(self.batches), self.schedule.minutes
        )
        # Use the seconds in the log, so that a resumed run ends at the same epoch.
        self.last = self.schedule.over(self.epoch, self.elapsed)
        if saved is not None:
            # The state belongs to the stage of the last epoch. If the next epoch starts another, the
            # loop switches as without the interruption.
            self.enter(
                min(saved.get("number", 0), len(self.schedule.stages) - 1), folder.checkpoint
            )
            folder.write_log(self.history.rows)
            if earlier is not None:
                length = run_config.length(self.schedule.stages, self.schedule.minutes)
                write_json(folder.path / run_config.NAME, {**earlier.values, **length})
        if not self.last:
            # These belong to the old weights.
            self.model.rescorer = self.model.novelty = None
            self.model.thresholds = self.model.thresholds.inherited()

    def enter(self, number, checkpoint=None):
        """Compile for a stage, and restore a checkpoint's state."""
        stage = self.schedule.stages[number]
        moving = compile_for(self.network, self.config, stage.layers)
        if checkpoint is not None:
            load_checkpoint(checkpoint, self.network)
        self.good, self.stage = snapshot(self.network), number
        self.reporter.stage(stage, count_trainable(self.network), len(moving))

    def run(self):
        """Epoch after epoch until the schedule ends or ``on_epoch`` stops it."""
        while not self.last:
            row = self.train_epoch()
            self.validate(row)
            self.history.rows.append(row)
            self.good = snapshot(self.network)
            if self.folder:
                name = self.schedule.stages[self.stage].name
                meta = {"epoch": self.epoch, "elapsed": row["seconds"], "rows": self.history.rows}
                meta |= {
                    "best": self.history.best,
                    "stage": name,
                    "number": self.stage,
                    "first": self.first,
                }
                save_checkpoint(self.folder.checkpoint, self.network, meta)
                self.folder.write_log(self.history.rows)
            self.reporter.epoch(row)
            if self.on_epoch is not None and self.on_epoch(row):
                self.history.stopped = "stopped by on_epoch"
                break

    def train_epoch(self):
        """Train for one epoch; returns its log row."""
        share = self.schedule.share(self.seconds)
        number, within, part = locate(self.schedule.stages, self.epoch, share)
        if number != self.stage:
            self.enter(number)
            self.first = self.epoch
        within = self.epoch - self.first if within is None else within
        stage, network, batches = self.schedule.stages[number], self.network, self.batches
        rate = stage.rate_at(within, part)
        network.optimizer.learning_rate = rate
        batches.epoch = self.epoch
        done = self.epoch / self.schedule.epochs if share is None else share
        batches.gentle = done >= 1.0 - self.config.settle
        watch = EpochWatch(batches, self.reporter, bool(self.config.ema))
        # shuffle=False: the batches have a seeded order, which Keras would shuffle without a seed.
        options = {"shuffle": False, "verbose": 0, "callbacks": [watch]}
        result = network.fit(batches, epochs=self.epoch + 1, initial_epoch=self.epoch, **options)
        row = {"epoch": self.epoch + 1, "stage": stage.name, "rate": rate}
        row |= {k: float(v[-1]) for k, v in result.history.items() if np.ndim(v[-1]) == 0}
        if not math.isfinite(row["loss"]):
            raise TrainingDiverged(
                f"the loss was {row['loss']} in epoch {self.epoch + 1}: lower the rate or the augmentation"
            )
        row |= watch.summary(self.config.batch_size)
        self.epoch += 1
        if self.config.ema and self.epoch * len(batches) < 2.0 / (1.0 - self.config.ema):
            restart_average(network)
        return row

    def validate(self, row):
        """Validate if it is the epoch's turn; keep the weights if they are the best so far."""
        row["seconds"] = round(self.seconds, 1)
        self.last = self.schedule.over(self.epoch, row["seconds"])
        turn = self.last or (self.every and self.epoch % self.every == 0)
        if self.validation is None or not turn:
            return
        with averaged(self.network, self.config):
            row |= validate(self.model, self.validation)
            best = self.history.best
            if best is None or row[self.metric] > best:
                self.history.best = row[self.metric]
                if self.folder:
                    self.model.save(self.folder.path / "weights")
        row["seconds"] = round(self.seconds, 1)
        self.last = self.last or self.schedule.over(self.epoch, row["seconds"])

    def stop(self, reason):
        """End early, with the state after the last complete epoch."""
        self.history.stopped = str(reason) or "interrupted"
        for variable, value in self.good:
            variable.assign(value)
        self.finish()
        if not isinstance(reason, TrainingDiverged) and self.reporter:
            again = ""
            if self.folder and self.resumable:
                again = "; --resume continues from there"
            elif self.folder and self.folder.checkpoint.exists():
                place = self.folder.path
                again = f"; to start again, delete {place} or choose another --run"
            self.reporter.say(f"stopped after epoch {len(self.history.rows)}{again}")

    def finish(self):
        """Put the averaged weights into the network, and into the run folder unless it keeps the best ones."""
        if self.config.ema and self.network.optimizer is not None:
            take_average(self.network)
        if not self.folder or not self.good or self.history.best is not None:
            return
        place = self.folder.path / "weights"
        if len(self.history.rows) == self.start and (place / "thresholds.json").exists():
            # Nothing was trained, so thresholds and rescorer are still valid.
            point = self.model.operating_point(place)
            self.model.thresholds, self.model.rescorer, self.model.novelty = point
        self.model.save(place)

    def close(self):
        if self.reporter:
            self.reporter.close()
        if self.folder:
            self.folder.close()


def validate(model, dataset):
    """The metrics of a log row, on a whole split, at the model's thresholds."""
    report = evaluate(
        dataset, predict_dataset(model, dataset, progress=False, diameter="none"), progress=False
    )
    return {key: report.metrics[key] for key in VALIDATED}
