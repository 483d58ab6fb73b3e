"""A whole training on one machine with a GPU, in chunks that a time limit allows:

    python -m nucleus_course.cli.gpu_run --preset paper-resnet50-scratch --data stage1_train.zip --out runs/paper-resnet50-scratch --minutes 60

Repeat the command until it says "finished": each call goes on, bit for bit, where the last one stopped. It
prepares the data cache, trains, and at the end chooses the thresholds, scores the validation split and writes
the weights in half precision, in files small enough to pass on. TensorFlow need not be installed.

In the folder of --out lie afterwards
    config.json, log.csv, log.jsonl, checkpoint.npz, weights/    as `nucleus-course train` leaves them
    model/           the model folder to pass on: half precision, files of at most --max-mb
    report.json      every metric on the validation split, of the model in model/; predictions.json beside it
    curves.png       losses, rate and validation by epoch
    summary.json     images/s, share of time spent waiting for input, loss, devices, versions
    compiled/        what JAX compiled, for the next call; it may be deleted
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course.backend import devices, load_backend
from nucleus_course.cli import common

# Seconds that are left free before the limit: the last checkpoint has to reach the disk.
MARGIN = 20.0


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Deadline:
    """When training has to stop, so that what comes after it still fits into the call."""

    def __init__(self, minutes: float | None, reserve: float):
        self.begun = time.perf_counter()
        self.limit = None if minutes is None else 60.0 * (minutes - reserve) - MARGIN
        self.last, self.lengths = self.begun, []

    def __call__(self, row) -> bool:
        """After each epoch: whether another one, as long as the longest so far, would end too late.

        The first of a call also compiles, so it counts only while it is alone.
        """
        now = time.perf_counter()
        self.lengths.append(now - self.last)
        self.last = now
        longest = max(self.lengths[1:] or self.lengths)
        return self.limit is not None and now - self.begun + longest > self.limit


@app.command()
@common.friendly
def main(
    preset: Annotated[
        str,
        typer.Option(
            "--preset", metavar="P", help="A preset; `nucleus-course reproduce` lists them."
        ),
    ],
    data: common.Data,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The run folder, for everything.")
    ],
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time limit of this call, everything included; default: none."),
    ] = None,
    reserve: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Minutes of the limit kept for scoring; default: a quarter, 5 at most."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs in all, over all calls; default: the preset's."),
    ] = None,
    total_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Training time in all, over all calls, instead: the rates follow the clock.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="S", help="What to learn from.")] = "train",
    validation: Annotated[str, typer.Option(metavar="S", help="What to score on.")] = "validation",
    validate_every: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Also score every N epochs and keep the best weights; 0: at the end only.",
        ),
    ] = 0,
    score: Annotated[
        str, typer.Option("--score", help="When to score: end (of the schedule), always, or never.")
    ] = "end",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="W", help="Start from these: coco, imagenet, a folder or a file."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Crops a step, over all devices.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=32, help="Side of a crop in network pixels.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps-per-epoch",
            metavar="N",
            min=1,
            help="Steps an epoch; a checkpoint comes after each.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads that prepare crops; default: the cores."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or mixed_bfloat16; default: the preset's.")
    ] = None,
    device_count: Annotated[
        int, typer.Option("--devices", metavar="N", min=1, help="How many GPUs share a batch.")
    ] = 1,
    max_mb: Annotated[
        float,
        typer.Option(metavar="MB", min=0.01, help="Largest file of model/, in MB of 10^6 bytes."),
    ] = 90.0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Where the decoded images are kept."),
    ] = None,
    limit: common.Limit = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="jax, tensorflow or torch.")
    ] = "jax",
) -> None:
    """Train a preset on one GPU machine in resumable chunks, score it, and pack its weights."""
    from nucleus_course.cli.resume import check_as_begun, check_images
    from nucleus_course.cli.train import adapted
    from nucleus_course.presets import get_preset
    from nucleus_course.training.run import read_run_config

    if score not in ("end", "always", "never"):
        raise UserError(f"unknown --score '{score}': choose end, always or never")
    common.check_dtype(dtype)
    if epochs is not None and total_minutes is not None:
        raise UserError("--epochs and --total-minutes are alternatives: give one of them")
    reserve = (min(5.0, minutes / 4) if minutes else 0.0) if reserve is None else reserve
    deadline = Deadline(minutes, 0.0 if score == "never" else reserve)
    if workers is None:
        workers = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
    options = {
        "batch_size": batch_size,
        "crop": crop,
        "seed": seed,
        "steps_per_epoch": steps,
        "dtype": dtype,
    }
    begun = read_run_config(out) if (out / "checkpoint.npz").exists() else None
    if begun is None:
        recipe = adapted(get_preset(preset), **options)
    else:
        check_as_begun(begun, preset=preset, weights=weights, **options)
        recipe = begun.preset
    recipe = adapted(recipe, workers=workers)
    backend = load_backend(backend)
    _keep_compiled(backend, out)

    sets = _data(data, split, validation, limit, cache)
    if begun is not None:
        check_images(begun, sets[0], data, split)
    finished, rows = _train(
        recipe, sets, out, weights, deadline, device_count,
        epochs=epochs, minutes=total_minutes, validate_every=validate_every,
    )  # fmt: skip
    if not rows:
        raise UserError(
            "the time limit passed before the first epoch ended: raise --minutes or lower --steps-per-epoch"
        )
    scored = None
    if score == "always" or (score == "end" and finished):
        scored = _score(out, sets[1], max_mb)
    _report(out, recipe, rows, finished, scored, backend)


def _keep_compiled(backend: str, out: Path) -> None:
    """Later chunks find what this one compiled (JAX): minutes of a large network's first step."""
    if backend != "jax":
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str((out / "compiled").absolute()))


def _data(data, split, validation, limit, cache):
    """(training set, validation set), decoded into the cache and into memory."""
    from nucleus_course.data import load_dataset

    begun = time.perf_counter()
    sets = [load_dataset(data, name, cache_dir=cache) for name in (split, validation)]
    sets = [s if limit is None else s.subset(s.ids[:limit]) for s in sets]
    sets[0].preload()
    kind = "synthetic " if sets[0].synthetic else ""
    _say(
        f"data: {len(sets[0])} {kind}images to learn from, {len(sets[1])} to score on ({time.perf_counter() - begun:.0f} s)"
    )
    return sets


def _train(recipe, sets, out, weights, deadline, count, *, epochs, minutes, validate_every):
    """Train until the schedule or the time is through: (finished, log rows)."""
    import keras

    from nucleus_course.models.weights import importers
    from nucleus_course.prediction.segmenter import build
    from nucleus_course.training import train
    from nucleus_course.training.distribute import data_parallel
    from nucleus_course.training.schedule import scale_stages

    training = recipe.training
    model_config, path, layout = recipe.model, None, None
    if weights is not None and not (out / "checkpoint.npz").exists():
        path, layout = importers.locate(weights, model_config)
        model_config = importers.adapted(model_config, layout)
    recipe = dataclasses.replace(recipe, model=model_config)
    keras.utils.set_random_seed(training.seed)
    with data_parallel(count, training.batch_size) as names:
        _say(
            f"devices: {', '.join(devices(keras.backend.backend()))}; {count} in use ({', '.join(names)})"
        )
        options = {"dtype_policy": training.dtype, "seed": training.seed}
        model = build(model_config, recipe.thresholds, **options)
        if path is not None:
            _say(str(importers.load_any(model.network, path, layout)))
            model.start = weights
        history = train(
            model, sets[0], preset=recipe, validation=sets[1] if validate_every else None, run=out, resume=True,
            epochs=epochs, minutes=minutes, validate_every=validate_every, on_epoch=deadline,
        )  # fmt: skip
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    rows = history.rows
    planned = sum(stage.epochs for stage in scale_stages(training.stages, epochs))
    finished = bool(rows) and (
        rows[-1]["seconds"] >= 60 * minutes if minutes else rows[-1]["epoch"] >= planned
    )
    return finished, rows


def _score(out: Path, validation, max_mb: float):
    """Pack the weights, choose thresholds for them, score them as they are packed; the :class:`Report`."""
    from nucleus_course.evaluation import evaluate
    from nucleus_course.evaluation.thresholds import choose_thresholds
    from nucleus_course.prediction.datasets import predict_dataset
    from nucleus_course.prediction.segmenter import load

    place = load(out / "weights").save(out / "model", half=True, max_mb=max_mb)
    model = load(place)
    begun = time.perf_counter()
    predictions = predict_dataset(model, validation, progress=False)
    _say(
        f"predicted {len(validation)} images in {time.perf_counter() - begun:.0f} s, compiling included"
    )
    choice = choose_thresholds(validation, predictions, metric="dsb_score", start=model.thresholds)
    for folder in (place, out / "weights"):
        choice.save(folder)
    predictions.score_threshold = choice.thresholds.score
    predictions.info.update(
        model=model.config.name, preset=model.config.name, min_area=choice.thresholds.min_area
    )
    predictions.save(out / "predictions.json")
    report = evaluate(validation, predictions, min_area=choice.thresholds.min_area, progress=False)
    report.save(out / "report.json")
    common.out().print(report.table())
    return report


def _report(out: Path, recipe, rows, finished: bool, scored, backend: str) -> None:
    """curves.png, summary.json, and the last lines on the screen."""
    import importlib.metadata
    import platform

    import numpy as np

    from nucleus_course import __version__
    from nucleus_course._util.files import write_atomically
    from nucleus_course.figures import draw_learning_curve

    def middle(key):
        values = [row[key] for row in rows if row.get(key) is not None]
        return round(float(np.median(values)), 4) if values else None

    figure, caption = draw_learning_curve(rows)
    write_atomically(
        out / "curves.png",
        lambda place: figure.savefig(
            place, format="png", dpi=110, facecolor="white", metadata={"Description": caption}
        ),
    )
    last = rows[-1]
    summary = {
        "preset": recipe.name,
        "finished": finished,
        "epochs": last["epoch"],
        "minutes": round(last["seconds"] / 60, 1),
        "images_per_s": middle("images_per_s"),
        "waiting": middle("waiting"),
        "loss": {key: last[key] for key in last if key.endswith("loss")},
        "metrics": scored.metrics if scored else None,
        "devices": devices(backend),
        "backend": backend,
        "dtype": recipe.training.dtype,
        "versions": {
            "nucleus_course": __version__, "python": platform.python_version(),
            "keras": importlib.metadata.version("keras"), backend: importlib.import_module(backend).__version__,
        },
    }  # fmt: skip
    write_atomically(
        out / "summary.json",
        lambda place: place.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8"),
    )
    if summary["images_per_s"]:
        _say(
            f"{summary['images_per_s']:.1f} images/s, {100 * summary['waiting']:.0f}% of the time waiting for input"
        )
    _say(
        f"loss {last['loss']:.3f} after epoch {last['epoch']}, {last['seconds'] / 60:.1f} minutes of training in all"
    )
    if finished:
        _say(f"finished: {out}/model, {out}/report.json" if scored else f"finished: {out}/weights")
    else:
        _say("the schedule is not through: repeat the command to go on")


def _say(text: str) -> None:
    common.out().print(Text(text), soft_wrap=True)


if __name__ == "__main__":
    app(prog_name="python -m nucleus_course.cli.gpu_run")
