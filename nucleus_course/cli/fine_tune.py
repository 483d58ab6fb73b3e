"""`nucleus-course train --fine-tune`: training on a few images in minutes, with scores before and after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_file, write_json
from nucleus_course._util.text import pluralize
from nucleus_course.backend import has_bfloat16
from nucleus_course.cli import common
from nucleus_course.cli.recipe import AUGMENTS, FIELDS, adapted, note_shared, opening_options

SAMPLE = "sample"
SMALL = 10  # with fewer images a data set has no named splits worth using
ORDINARY = 24  # ordinary images that are scored, at most
SHOWN = ("coco_ap", "f1_50", "f1_70", "pq", "mean_mask_iou")
LOST = 2.0  # with a larger loss of F1 on ordinary images, a line gives advice
NOT_WITH = ("preset", "resume", "time_limit", "pack", "largest", "limit", "validate_every")


def fine_tune(asked: SimpleNamespace, backend: str) -> None:
    """`train --fine-tune` with these options.

    Raises:
        UserError: options that exclude each other, no training images, a run folder that is in use or holds a training,
            or a training that diverges.
    """
    from nucleus_course.training import TrainingDiverged, train
    from nucleus_course.training.fine_tune import Mixed, fine_tune_preset

    for name in NOT_WITH:
        if getattr(asked, name) not in (None, False):
            option = name.replace("_", "-")
            raise UserError(f"--{option} does not go with --fine-tune: leave it out")
    folder = asked.run or Path("runs") / "fine-tune"
    _check_folder(folder)
    own, judged = _split(asked)
    ordinary = _ordinary(asked, own)
    old = None if asked.mix is None else _old(asked, judged, ordinary)
    dtype = asked.dtype or ("mixed_bfloat16" if has_bfloat16(backend) else "float32")
    asked.dtype, weights = dtype, asked.weights or "compact"
    model = common.open_model(weights, dtype=dtype)
    preset = adapted(fine_tune_preset(model.config), **{n: getattr(asked, n) for n in FIELDS})
    preset = adapted(preset, workers=asked.workers)
    augment = AUGMENTS[asked.augment or "preset"](preset.augment)
    preset = dataclasses.replace(preset, augment=augment)
    dataset = own
    if old is not None:
        dataset, preset = Mixed(own, old), Mixed.preset(preset)
    judges = {"left out": judged, "ordinary": ordinary}
    judges = {name: data for name, data in judges.items() if data is not None}
    before = {name: _score(model, data, name) for name, data in judges.items()}
    model.start = weights
    notes = {"fine_tuned": True, "mixed_in": asked.mix, "thresholds_chosen": False}
    length = {"epochs": asked.epochs, "minutes": asked.minutes}
    try:
        history = train(model, dataset, preset=preset, run=folder, notes=notes, **length)
    except TrainingDiverged as error:
        raise UserError(f"{error}; {folder}/weights holds the last good weights") from None
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    after = {name: _score(model, data, name) for name, data in judges.items()}
    _tell(folder, before, after, own, judged, asked)


def _check_folder(folder: Path) -> None:
    """Raise a UserError if the run folder cannot be used, before anything is scored."""
    from nucleus_course.training.checkpoint import RunFolder

    if (folder / "checkpoint.npz").exists():
        raise UserError(
            f"run folder {folder} already holds a training, which --fine-tune cannot continue: choose another --run, or "
            "delete the folder"
        )
    if folder.exists():
        RunFolder(folder).close()  # an error if it is a file or in use


def _split(asked: SimpleNamespace):
    """The training images and those left out, None if there are none."""
    from nucleus_course.training.fine_tune import left_out

    options = _options(asked, asked.data)
    whole = common.open_data(asked.data, asked.split or "all", what="images at hand", **options)
    if asked.validation == "none":
        return whole, None
    if asked.validation is not None:
        judged = common.open_data(asked.data, asked.validation, what="left out", **options)
        if asked.split is not None:
            note_shared(whole, judged)
            return whole, judged
        kept = [image_id for image_id in whole.ids if image_id not in set(judged.ids)]
        if not kept:
            raise UserError(
                f"--validation {asked.validation} leaves no image to train on: name fewer images"
            )
        images, out = pluralize(len(kept), "image"), len(judged)
        common.note(f"training on {images}; left out for scoring: the {out} of --validation")
        return whole.subset(kept), judged
    out = left_out(whole.ids)
    if not out:
        common.note("only one image: none can be left out, so nothing shows what was learned")
        return whole, None
    kept = [image_id for image_id in whole.ids if image_id not in out]
    images = pluralize(len(kept), "image")
    common.note(f"training on {images}; left out for scoring: {', '.join(out)}")
    return whole.subset(kept), whole.subset(out)


def _ordinary(asked: SimpleNamespace, own):
    """Ordinary images to score on, evenly spread, without those that are trained on; None if none are left."""
    from nucleus_course.training.fine_tune import left_out

    source = asked.ordinary or SAMPLE
    mixed = asked.mix is not None and _same(source, asked.mix)
    options = _options(asked, source)
    part = _part(source, "validation", options) if mixed or source != SAMPLE else "all"
    found = common.open_data(source, part, what="ordinary images", **options)
    if mixed and part == "all":  # some are scored, `_old` mixes in the others
        some = left_out(found.ids)
        if not some:
            raise UserError(
                f"{source} holds one image, which cannot be both mixed in and scored: name other data with --ordinary"
            )
        common.note(f"ordinary images: {len(some)} of these {len(found)}, the others are mixed in")
        found = found.subset(some)
    learned = set(_shared(found, own))
    kept = [image_id for image_id in found.ids if image_id not in learned]
    if not kept and asked.ordinary is not None:
        raise UserError(f"--ordinary {source}: all its images are trained on: name other data")
    if learned:
        without = pluralize(len(learned), "image")
        end = "" if kept else ": none are left; --ordinary names others"
        common.note(f"ordinary images: without {without} that training learns from{end}")
    return found.subset(kept[:: -(-len(kept) // ORDINARY)]) if kept else None


def _old(asked: SimpleNamespace, judged, ordinary):
    """The images of --mix, without those that are scored."""
    options = _options(asked, asked.mix)
    part = _part(asked.mix, "train", options)
    old = common.open_data(asked.mix, part, what="mixed in, half of the crops", **options)
    scored = {i for data in (judged, ordinary) if data is not None for i in _shared(old, data)}
    if not scored:
        return old
    kept = [image_id for image_id in old.ids if image_id not in scored]
    if not kept:
        raise UserError(
            f"--mix {asked.mix}: all its images are scored, so none can be mixed in: name other data, or leave --mix out"
        )
    images = pluralize(len(scored), "image")
    common.note(f"mixed in: without {images} that are left out or scored as ordinary ones")
    return old.subset(kept)


def _shared(data, other) -> list[str]:
    """The ids of ``data`` whose images are in ``other``, too: the same id and, in another source, the same pixels."""
    known = set(other.ids)
    ids = [image_id for image_id in data.ids if image_id in known]
    if _same(data.source, other.source):
        return ids
    return [i for i in ids if np.array_equal(data[i].image, other[i].image)]


def _same(one: str | Path, other: str | Path) -> bool:
    """Whether two names mean one source."""
    return Path(one).resolve() == Path(other).resolve()


def _options(asked: SimpleNamespace, source: str) -> dict[str, Any]:
    """How a source is opened: as asked if it holds the images at hand, others with the reading options if they allow it."""
    from nucleus_course.data import load_dataset

    options = opening_options(asked) | {"strict": asked.strict}
    if _same(source, asked.data):
        return options
    reading = options["reading"]
    if source == SAMPLE or not reading:
        return {}
    try:
        load_dataset(source, progress=False, **reading)
    except UserError as error:
        try:
            load_dataset(source, progress=False)
        except UserError:
            raise error from None
        given = ", ".join(f"--{name}" for name in reading)
        common.note(f"{source} is read without {given}: {error}")
        return {}
    return {"reading": reading}


def _part(source: str, name: str, options: dict[str, Any] | None = None) -> str:
    """The name of the split, or "all" for a data set that is too small to be split."""
    from nucleus_course.data import load_dataset

    how = dict(options or {})
    how |= how.pop("reading", {})
    return name if len(load_dataset(source, progress=False, **how)) >= SMALL else "all"


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
    if after:
        common.out().print(table)
    written = [folder / "weights", folder / "fine-tune.json"]
    write_json(folder / "fine-tune.json", document)
    if judged is not None:
        written.append(folder / "left-out.txt")
        write_file(written[-1], "".join(f"{image_id}\n" for image_id in judged.ids))
    common.written(*written)
    pair = [
        scores["ordinary"].metrics["f1_50"] for scores in (before, after) if "ordinary" in scores
    ]
    lost = pair[0] - pair[1] if pair and None not in pair else 0.0
    if lost > LOST:
        keep, mix = "keep the old weights for those", "--mix DATA also trains on old images"
        advice = keep if asked.mix else mix
        common.note(f"on ordinary images F1 fell by {lost:.1f} points: {advice}")
    split = f" --split {written[-1]}" if judged is not None else " --split all"
    common.say(
        "the thresholds are still those of the old weights, not chosen for these. With more than a few images, choose new ones: "
        f"nucleus-course thresholds --data {asked.data}{split} --weights {folder}"
    )
