"""`nucleus-course train --fine-tune`: training on a few images in minutes, with scores before and after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_file, write_json
from nucleus_course._util.text import pluralize
from nucleus_course.backend import has_bfloat16
from nucleus_course.cli import common
from nucleus_course.cli.recipe import AUGMENTS, FIELDS, adapted

ORDINARY = 24  # ordinary images that are scored, at most
SHOWN = ("coco_ap", "f1_50", "f1_70", "pq", "mean_mask_iou")
LOST = 2.0  # with a larger loss of F1 on ordinary images, a line gives advice
NOT_WITH = ("preset", "resume", "time_limit", "pack", "largest", "limit", "validate_every")


def fine_tune(asked: SimpleNamespace, backend: str) -> None:
    """`train --fine-tune` with these options.

    Raises:
        UserError: options that exclude each other, or no training images.
    """
    from nucleus_course.training import train
    from nucleus_course.training.fine_tune import Mixed, fine_tune_preset

    for name in NOT_WITH:
        if getattr(asked, name) not in (None, False):
            option = name.replace("_", "-")
            raise UserError(f"--{option} does not go with --fine-tune: leave it out")
    folder = asked.run or Path("runs") / "fine-tune"
    own, judged = _split(asked)
    ordinary = _ordinary(asked)
    dtype = asked.dtype or ("mixed_bfloat16" if has_bfloat16(backend) else "float32")
    asked.dtype, weights = dtype, asked.weights or "compact"
    model = common.open_model(weights, dtype=dtype)
    preset = adapted(fine_tune_preset(model.config), **{n: getattr(asked, n) for n in FIELDS})
    preset = adapted(preset, workers=asked.workers)
    augment = AUGMENTS[asked.augment or "preset"](preset.augment)
    preset = dataclasses.replace(preset, augment=augment)
    dataset = own
    if asked.mix is not None:
        part = _part(asked.mix, "train")
        old = common.open_data(asked.mix, part, what="mixed in, half of the crops")
        dataset, preset = Mixed(own, old), Mixed.preset(preset)
    judges = {"left out": judged, "ordinary": ordinary}
    judges = {name: data for name, data in judges.items() if data is not None}
    before = {name: _score(model, data, name) for name, data in judges.items()}
    model.start = weights
    notes = {"fine_tuned": True, "mixed_in": asked.mix, "thresholds_chosen": False}
    history = train(model, dataset, preset=preset, run=folder, epochs=asked.epochs, minutes=asked.minutes, notes=notes)  # fmt: skip
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    after = {name: _score(model, data, name) for name, data in judges.items()}
    _tell(folder, before, after, own, judged, asked)


def _split(asked: SimpleNamespace):
    """The training images and those left out, None if there are none."""
    from nucleus_course.training.fine_tune import left_out

    names = ("reading", "strict", "allow_empty", "annotations")
    options = {name: getattr(asked, name) for name in names}
    whole = common.open_data(asked.data, asked.split or "all", what="images at hand", **options)
    if asked.validation == "none":
        return whole, None
    if asked.validation is not None:
        return whole, common.open_data(asked.data, asked.validation, what="left out", **options)
    out = left_out(whole.ids)
    if not out:
        common.note("only one image: none can be left out, so nothing shows what was learned")
        return whole, None
    kept = [image_id for image_id in whole.ids if image_id not in out]
    images = pluralize(len(kept), "image")
    common.note(f"training on {images}; left out for scoring: {', '.join(out)}")
    return whole.subset(kept), whole.subset(out)


def _ordinary(asked: SimpleNamespace):
    """Ordinary images to score on, evenly spread, without those that --mix trains on."""
    source = asked.ordinary or "sample"
    part = _part(source, "validation") if source == asked.mix or source != "sample" else "all"
    found = common.open_data(source, part, what="ordinary images")
    step = -(-len(found) // ORDINARY)
    return found.subset(found.ids[::step]) if step > 1 else found


def _part(source: str, name: str) -> str:
    """The name of the split, or "all" for a data set that is too small to be split."""
    from nucleus_course.data import load_dataset

    return name if len(load_dataset(source, progress=False)) >= 10 else "all"


def _score(model, dataset, name: str):
    """The report of a model on a data set."""
    from nucleus_course.evaluation import evaluate
    from nucleus_course.prediction.datasets import predict_dataset

    report = evaluate(dataset, predict_dataset(model, dataset))
    report.name = name
    return report


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _tell(folder: Path, before: dict, after: dict, own, judged, asked: SimpleNamespace) -> None:
    """Print the table and the next step, and write the results beside the weights."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="Percent, before and after", title_justify="left")
    table.add_column("metric")
    document: dict[str, Any] = {"thresholds_chosen": False, "learned_from": list(own.ids)}
    columns = []
    for name, report in after.items():
        pair = [before[name].metrics, report.metrics]
        nuclei = pluralize(report.counts["nuclei"], "nucleus", "nuclei")
        table.add_column(f"{name}, n = {report.counts['images']} ({nuclei})", justify="right")
        columns.append([" to ".join(_percent(m[key]) for m in pair) for key in SHOWN])
        values = dict(zip(("before", "after"), ({k: m[k] for k in SHOWN} for m in pair)))
        document[name] = {"data": report.dataset, "images": sorted(report.images), **values}
    for row in zip(SHOWN, *columns):
        table.add_row(*row)
    common.out().print(table)
    written = [folder / "weights", folder / "fine-tune.json"]
    write_json(folder / "fine-tune.json", document)
    if judged is not None:
        written.append(folder / "left-out.txt")
        write_file(written[-1], "".join(f"{image_id}\n" for image_id in judged.ids))
    common.written(*written)
    lost = before["ordinary"].metrics["f1_50"] - after["ordinary"].metrics["f1_50"]
    if lost > LOST:
        keep, mix = "keep the old weights for those", "--mix DATA also trains on old images"
        advice = keep if asked.mix else mix
        common.note(f"on ordinary images F1 fell by {lost:.1f} points: {advice}")
    split = f" --split {written[-1]}" if judged is not None else " --split all"
    common.say(
        "the thresholds are still those of the old weights, not chosen for these. With more than a few images, choose new ones: "
        f"nucleus-course thresholds --data {asked.data}{split} --weights {folder}"
    )
