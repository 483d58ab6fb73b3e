"""The steps of processing one slide: begin, one band after the other, finish; each can run in any process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleus_course._util.progress import progress
from nucleus_course._util.text import pluralize
from nucleus_course.config import Thresholds
from nucleus_course.data.files import Pixels
from nucleus_course.data.slides import Plane
from nucleus_course.prediction.image_files import ImageFile, fingerprint
from nucleus_course.prediction.interchange import ImagePredictions
from nucleus_course.prediction.measurements import count_image, view_columns
from nucleus_course.prediction.slides import PIECEWISE, Parts, Plan, detect_band, gather, plan_slide

if TYPE_CHECKING:
    from nucleus_course.prediction.many import Work


def thresholds_of(work: Work) -> Thresholds:
    """The model's thresholds, with the flips of the options."""
    flips = work.how.get("flips")
    point = work.model.thresholds
    return point if flips is None else dataclasses.replace(point, flips=flips)


def begin(work: Work, file: ImageFile, plane: Plane) -> Parts:
    """Plan the slide, and open the folder of its bands; those of an interrupted run are kept."""
    plan = plan_slide(work.model, plane, thresholds_of(work), work.threshold, work.how)
    return Parts(work.results.parts(file), plan, fingerprint(file.path))


def reopen(work: Work, file: ImageFile) -> Parts:
    """The folder of bands that :func:`begin` opened, perhaps in another process."""
    folder = work.results.parts(file)
    values = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    known = values.pop("fingerprint")
    del values["format"]
    return Parts(folder, Plan(**values), known)


def band(work: Work, file: ImageFile, plane: Plane, number: int, *advance: Callable) -> list[str]:
    """Detect in one band; returns the warnings. ``advance`` is called after each tile."""
    parts = reopen(work, file)
    return detect_band(work.model, plane, thresholds_of(work), parts, number, *advance)


def do_slide(work: Work, file: ImageFile, plane: Plane, note: Callable) -> dict[str, Any]:
    """Detect in a slide and write its results; returns its row of counts.csv."""
    parts = begin(work, file, plane)
    bands, missing = parts.plan.bands(), parts.missing()
    tiles = sum(len(one) for one in bands)
    done = tiles - sum(len(bands[number]) for number in missing)
    if done:
        note(f"{file.path}: {done} of {pluralize(tiles, 'tile')} done before")
    said: dict[str, None] = {}
    with progress() as bar:
        task = bar.add_task(file.stem, total=tiles, completed=done)
        for number in missing:
            said |= dict.fromkeys(band(work, file, plane, number, lambda: bar.advance(task)))
    for line in said:
        note(f"{file.path}: {line}")
    return finish(work, file, plane, parts, note)


def finish(
    work: Work, file: ImageFile, plane: Plane, parts: Parts, note: Callable[[str], None]
) -> dict[str, Any]:
    """Merge a slide's bands and write its results; returns its row of counts.csv."""
    plan, point = parts.plan, thresholds_of(work)
    least = point.min_area and max(1, round(point.min_area / plan.factor**2))
    nuclei = gather(parts, point.nms_iou, least)
    labels = parts.folder / "labels.tif"
    nuclei.write_labels(labels)
    about = {"channel": plane.channel, "pixel_size": plane.pixel_size}

    def table_of(labels, values, scores, quality):
        return work.outputs.measure(labels, Pixels(values, **about), scores, quality, plan.novelty)

    rows = nuclei.measure(plane, table_of)
    seen = view_columns(plan.canonical, plan.novelty, plan.factor, nuclei.warnings)
    everything = nuclei.rles(), nuclei.scores, nuclei.boxes
    found = ImagePredictions(*plan.shape, *everything, file.file_name)

    def export(stem):
        none = table_of(np.zeros((1, 1), int), plane.read(0, 0, 1, 1), [], [])
        table = {name: [row[name] for row in rows] for name in rows[0]} if rows else none
        work.outputs.write_slide(work.results.path, stem, nuclei, plane, table)

    file = work.results.add(file, found, labels, rows, None, seen, export)
    note(
        f"{file.path}: {PIECEWISE.format(plan.score_threshold)}"
        + ("; no overlay of a slide is drawn" if work.overlay else "")
    )
    parts.remove()
    plane.close()
    return count_image(file.file_name, plan.shape, rows, seen)
