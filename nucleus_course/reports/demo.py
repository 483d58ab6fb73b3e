"""`nucleus-course demo`, step by step: the whole job once, on the embedded sample."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

SHIPPED = "compact"
STEPS = 10  # per epoch; short epochs give the learning curve more points
PATIENCE = 4.0  # minutes of training after which a slow machine stops early


def run_demo(out: Path, epochs: int = 15, console: Console | None = None) -> dict:
    """Data, a brief training, detection, evaluation, figures; everything is written to ``out``.

    Args:
        out: folder; the ``run/`` of an earlier demo in it is replaced.
        epochs: length of the training, in epochs of ten steps.

    Returns:
        {"reports": {"validation": Report, "all": Report}, "figures": [paths], "weights": "compact" or "brief"}.
    """
    from nucleus_course.data import load_dataset
    from nucleus_course.figures import draw_detections, draw_learning_curve, draw_samples

    out, start = Path(out), time.perf_counter()
    console = console or Console(highlight=False)
    figures = []

    def step(number, text):
        console.print(Text(f"\n{number}/5  {text}", style="bold"), soft_wrap=True)

    def say(text):
        console.print(Text(f"     {text}"), soft_wrap=True)

    def keep(name, drawn):
        figure, caption = drawn
        path = out / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        look = {"dpi": 110, "bbox_inches": "tight", "facecolor": "white"}
        figure.savefig(path, metadata={"Description": caption}, **look)
        figures.append(path)

    step(1, "Data: the embedded sample. It is SYNTHETIC, drawn by a program, and needs no network.")
    dataset = load_dataset("sample", "all", progress=False)
    training, validation = dataset.subset("train"), dataset.subset("validation")
    nuclei = sum(dataset.counts.values())
    use = f"{len(training)} images to train on, {len(validation)} to validate on"
    say(f"{len(dataset)} images, {nuclei} nuclei: {use}")
    keep("samples", draw_samples(dataset))

    step(2, f"Training the compact network from random weights: {epochs} epochs of {STEPS} steps")
    trained, rows = _train_briefly(training, validation, out / "run", epochs)
    if len(rows) < epochs:
        say(f"stopped after {len(rows)} epochs: this machine is slow, or busy")
    say(f"loss {rows[0]['loss']:.2f} in the first epoch, {rows[-1]['loss']:.2f} in the last")
    keep("learning_curve", draw_learning_curve(rows, synthetic=True))

    step(3, "Weights")
    model, weights = _best_weights(trained)
    if weights == SHIPPED:
        learned = "learned from BBBC038's real nuclei, not from this sample"
        say(f"loaded the shipped 'compact' weights: {learned}")
    else:
        say("This copy has NO trained weights: using those just trained, far too briefly")

    step(4, f"Detecting the nuclei in {len(dataset)} images")
    predictions, examples = _detect(model, dataset, validation, out, weights)
    say(f"{predictions.detections} detections, kept with their scores")
    for number, (record, labels) in enumerate(examples, start=1):
        keep(f"detections_{number}", draw_detections(record, labels, mark=True, synthetic=True))

    step(5, "Evaluation, percent")
    splits = {"validation": validation, "all": dataset}
    reports = _evaluate(splits, predictions, out, weights, console)

    lines = [
        ("table and metrics", "report.json (validation), report_all.json"),
        ("detections", "predictions.json, labels/<id>.tif"),
        ("figures", ", ".join(p.relative_to(out).as_posix() for p in figures)),
        ("training", "run/log.csv, run/weights/"),
    ]
    done = f"Done in {(time.perf_counter() - start) / 60:.1f} minutes. Written to {out}/"
    console.print(Text(done, style="bold"), soft_wrap=True)
    for what, where in lines:
        say(f"{what:<18} {where}")
    say(
        "Synthetic images show that everything works here; README.md has the results on real nuclei."
    )
    return {"reports": reports, "figures": figures, "weights": weights}


def _train_briefly(training, validation, run: Path, epochs: int):
    """A real training of the compact preset, cut short: (model, log rows)."""
    from nucleus_course.backend import has_bfloat16
    from nucleus_course.prediction.segmenter import create
    from nucleus_course.presets import get_preset
    from nucleus_course.training import train

    if (run / "checkpoint.npz").exists():  # an earlier demo's
        shutil.rmtree(run)
    import keras

    preset = get_preset(SHIPPED)
    dtype = preset.training.dtype if has_bfloat16(keras.backend.backend()) else "float32"
    brief = dataclasses.replace(preset.training, steps_per_epoch=STEPS, dtype=dtype)
    preset = dataclasses.replace(preset, training=brief)
    keras.utils.set_random_seed(brief.seed)
    model = create(SHIPPED, dtype_policy=dtype, seed=brief.seed)
    history = train(
        model, training, preset=preset, validation=validation, run=run, epochs=epochs, validate_every=5,
        on_epoch=lambda row: row["seconds"] > 60 * PATIENCE,
    )  # fmt: skip
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    return model, history.rows


def _best_weights(trained):
    """The shipped model if there is one, else the one just trained."""
    from nucleus_course.models.weights.folder import shipped_weights
    from nucleus_course.prediction.segmenter import load

    if SHIPPED in shipped_weights():
        return load(SHIPPED), SHIPPED
    return trained, "brief"


def _detect(model, dataset, validation, out: Path, weights: str):
    """Detect on every image; write predictions.json and label images: (Predictions, [(record, labels)] to draw)."""
    from nucleus_course._util.progress import track
    from nucleus_course.prediction.datasets import image_predictions
    from nucleus_course.prediction.interchange import Predictions
    from nucleus_course.prediction.label_images import write_labels

    images, examples, drawn = {}, [], set()
    for record in track(dataset, "detecting"):
        found = model.predict(record.image)
        images[record.id] = image_predictions(found)
        labels = found.label_image()
        write_labels(out / "labels" / f"{record.id}.tif", labels)
        if record.id in validation and record.type not in drawn:
            drawn.add(record.type)
            examples.append((record, labels))
    info = {
        "model": f"compact ({weights} weights)" if weights == "brief" else weights,
        "min_area": model.thresholds.min_area,
    }
    predictions = Predictions(images, model.thresholds.score, info)
    predictions.save(out / "predictions.json")
    return predictions, examples


def _evaluate(splits: dict, predictions, out: Path, weights: str, console: Console) -> dict:
    """Evaluate on each split, write the reports and print them side by side."""
    from nucleus_course.evaluation import comparison_table, evaluate
    from nucleus_course.prediction.interchange import Predictions

    reports = {}
    for name, dataset in splits.items():
        images = {i: predictions.images[i] for i in dataset.ids}
        own = Predictions(images, predictions.score_threshold, predictions.info)
        reports[name] = evaluate(dataset, own, progress=False)
        reports[name].save(out / ("report.json" if name == "validation" else f"report_{name}.json"))
    names = [f"{name}, {len(dataset)} images" for name, dataset in splits.items()]
    console.print(comparison_table(list(reports.values()), names))
    if weights == "brief":
        warning = "     'all' holds the images it was trained on: only 'validation' says anything."
        console.print(Text(warning), soft_wrap=True)
    return reports
