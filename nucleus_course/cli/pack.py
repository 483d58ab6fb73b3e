"""`train --pack`: thresholds, scores, and the model in a form to pass on."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from nucleus_course._util.files import atomic_write, write_json
from nucleus_course.backend import devices
from nucleus_course.cli import common
from nucleus_course.cli.recipe import Recipe


def write_pack(recipe: Recipe, out: Path, rows: list, judged, max_mb: float, backend: str) -> None:
    """Write the run's weights to ``out`` in half precision, and score these.

    Args:
        rows: the log.
        judged: the data set to choose thresholds on and to score.
        max_mb: largest size of a file, MB of 10^6 bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(recipe.folder / "log.csv", out / "log.csv")  # now: scoring takes a while
    report = _score(recipe, out, judged, max_mb)
    _summary(recipe, out, rows, report, backend)
    common.written(f"{out}/ (a model folder)", out / "report.json", out / "summary.json")


def _score(recipe: Recipe, out: Path, judged, max_mb: float):
    """Save the packed weights, choose thresholds for them and score them; returns the report."""
    from nucleus_course.evaluation import evaluate
    from nucleus_course.evaluation.thresholds import choose_thresholds
    from nucleus_course.prediction.datasets import predict_dataset
    from nucleus_course.prediction.segmenter import load

    weights = recipe.folder / "weights"
    model = load(load(weights).save(out, half=True, max_mb=max_mb))
    begin = time.perf_counter()
    predictions = predict_dataset(model, judged)
    seconds = time.perf_counter() - begin
    common.say(f"predicted {len(judged)} images in {seconds:.0f} s, compiling included")
    choice = choose_thresholds(judged, predictions, metric="dsb_score", start=model.thresholds)
    for folder in (out, weights):
        choice.save(folder)
    best = choice.thresholds
    predictions.score_threshold = best.score
    predictions.info.update(preset=model.config.name, min_area=best.min_area)
    predictions.save(out / "predictions.json")
    report = evaluate(judged, predictions, min_area=best.min_area, progress=False)
    for folder in (out, recipe.folder):
        report.save(folder / "report.json")
    common.out().print(report.table())
    return report


def _summary(recipe: Recipe, out: Path, rows: list, report, backend: str) -> None:
    """curves.png and summary.json."""
    import importlib.metadata
    import platform
    import statistics

    from nucleus_course import __version__
    from nucleus_course.figures import draw_learning_curve

    def median(key):
        values = [row[key] for row in rows if row.get(key) is not None]
        return round(statistics.median(values), 4) if values else None

    figure, caption = draw_learning_curve(rows)
    with atomic_write(out / "curves.png") as place:
        figure.savefig(place, format="png", dpi=110, metadata={"Description": caption})
    last, training = rows[-1], recipe.preset.training
    versions = {"nucleus_course": __version__, "python": platform.python_version()}
    versions["keras"] = importlib.metadata.version("keras")
    versions[backend] = importlib.import_module(backend).__version__
    summary = {
        "preset": recipe.preset.name, "epochs": last["epoch"],
        "minutes": round(last["seconds"] / 60, 1), "batch_size": training.batch_size,
        "images_per_s": median("images_per_s"), "waiting": median("waiting"),
        "loss": {key: last[key] for key in last if key.endswith("loss")},
        "metrics": report.metrics, "devices": devices(backend), "backend": backend,
        "dtype": training.dtype, "versions": versions,
    }  # fmt: skip
    write_json(out / "summary.json", summary)
    if summary["images_per_s"]:
        share = 100 * (summary["waiting"] or 0)
        common.say(f"{summary['images_per_s']:.1f} images/s, {share:.0f}% of it waiting for input")
