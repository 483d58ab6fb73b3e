"""What is done with each of many images: read, detect, measure, write. A failure of one does not stop the rest."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nucleus_course._util.errors import UserError
from nucleus_course.backend import explain, fastest_dtype, is_out_of_memory, load_backend
from nucleus_course.data.slides import LARGE, Plane, as_plane, open_plane
from nucleus_course.prediction.image_files import ImageFile, read_picture
from nucleus_course.prediction.outputs import Outputs


def say_aside(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr)


class Work:
    """A model, where its results go, and how images are read.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        results: :class:`~nucleus_course.prediction.results.ResultsFolder`.
        threshold: the score from which detections count.
        overlay: whether to draw the outlines.
        reading: options of :func:`~nucleus_course.data.read.read_image`.
        how: options of :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.
        outputs: :class:`~nucleus_course.prediction.outputs.Outputs`.
    """

    def __init__(self, model, results, threshold, overlay, reading, how, outputs):
        self.model, self.results, self.threshold = model, results, threshold
        self.overlay, self.reading, self.how, self.outputs = overlay, reading, how, outputs

    @property
    def takes_slides(self) -> bool:
        """Whether large images are processed piece by piece: with a Mask R-CNN on the canonical input."""
        looks = self.how.get("input") or getattr(self.model.config, "input", "")
        return getattr(self.model, "kind", "") == "mask_rcnn" and looks == "canonical"

    def plane(self, file: ImageFile) -> Plane | None:
        """A slide, opened but not read; None if the image is to be read whole."""
        if not self.takes_slides:
            return None
        plane = open_plane(file.path, **self.reading)
        for line in plane.notes if plane is not None else ():
            say_aside(line)
        return plane

    def one(self, file: ImageFile, note: Callable[[str], None] = say_aside) -> dict[str, Any]:
        """Detect in one file and write its results; returns its row of counts.csv."""
        from nucleus_course.data import to_rgb8
        from nucleus_course.prediction import slide_work
        from nucleus_course.prediction.interchange import ImagePredictions
        from nucleus_course.prediction.measurements import count_image, to_rows, view_columns

        plane = self.plane(file)
        if plane is not None:
            return slide_work.do_slide(self, file, plane, note)
        pixels = read_picture(file.path, **self.reading)
        if self.takes_slides and pixels.values[..., 0].size >= LARGE:
            plane = as_plane(pixels.values, pixels)
            return slide_work.do_slide(self, file, plane, note)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            found = self.model.predict(pixels.values, **self.how)
        said = dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning)
        for message in said:
            note(f"{file.path}: {message}")
        rles = found.rles()  # first, so that the label image reuses the pasted masks
        labels, sure = found.labelled(self.threshold)
        scores, novelty = sure.scores, found.novelty
        table = self.outputs.measure(labels, pixels, scores, sure.quality, novelty)
        shape = labels.shape
        everything = ImagePredictions(*shape, rles, found.scores, found.boxes, file.file_name)
        picture = to_rgb8(pixels.values) if self.overlay else None
        seen = view_columns(found.canonical, novelty, getattr(found, "scale", None), said)
        nuclei = to_rows(table)

        def export(stem):
            self.outputs.write(self.results.path, stem, labels, pixels, scores, table)

        file = self.results.add(file, everything, labels, nuclei, picture, seen, export)
        return count_image(file.file_name, shape, nuclei, seen)


def reason(error: Exception, path: str | Path) -> str:
    """One line on why an image failed; unexpected errors also print their traceback."""
    if isinstance(error, UserError):
        text = str(error)
    elif is_out_of_memory(error):
        text = "too large for this machine's memory: try a smaller --tile"
    else:
        text = explain(error) or f"{type(error).__name__}: {error}"
        if not isinstance(error, OSError):
            traceback.print_exception(error)
    text = " ".join(text.split())
    return text if str(path) in text else f"{path}: {text}"


@dataclass(frozen=True)
class Recipe:
    """Everything that another process needs to do the same :class:`Work`, as plain values.

    Attributes:
        out: the results folder.
        weights, preset, dtype: for :func:`~nucleus_course.prediction.segmenter.open_model`.
        load: a function () -> model to use instead.
        score_threshold: None for the model's own.
        reading, how, export, pixel_size, properties: as for :class:`Work` and
            :class:`~nucleus_course.prediction.outputs.Outputs`.
    """

    out: str
    weights: str = "compact"
    preset: str | None = None
    dtype: str | None = None
    runtime: str = "keras"
    backend: str | None = None
    load: Callable[[], Any] | None = None
    score_threshold: float | None = None
    overlay: bool = False
    reading: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    export: str = ""
    pixel_size: float | None = None
    properties: str = ""

    def model(self):
        """The model, loaded now."""
        if self.load is not None:
            return self.load()
        load_backend(self.backend)
        from nucleus_course.prediction.segmenter import open_model

        dtype = self.dtype or fastest_dtype(self.runtime)
        precise = self.dtype and self.runtime == "openvino"
        options = {"precision": self.dtype.removeprefix("mixed_")} if precise else {}
        return open_model(self.weights, self.preset, dtype).use_engine(self.runtime, **options)

    def outputs(self) -> Outputs:
        """What is written besides labels and tables."""
        return Outputs(self.export, self.pixel_size, self.properties)

    def threshold(self, model) -> float:
        """The score from which detections count."""
        return model.thresholds.score if self.score_threshold is None else self.score_threshold

    def settings(self, model) -> dict[str, Any]:
        """What predictions.json records about the model, and what must be equal for results to share a folder."""
        from nucleus_course import __version__
        from nucleus_course.prediction.results import weights_digest

        info = {
            "model": str(self.weights),
            "preset": model.config.name,
            "min_area": model.thresholds.min_area,
            "software": f"nucleus_course {__version__}",
            "score_threshold": float(self.threshold(model)),
        }
        point = dataclasses.asdict(model.thresholds)
        options = {name: point[name] for name in ("nms_iou", "mask", "flips")}
        options |= self.reading | self.how | self.outputs().settings()
        return {"info": info, "options": options | {"weights": weights_digest(model)}}

    def open(self, model=None, overwrite: bool = False) -> Work:
        """The work, with its results folder created or checked."""
        from nucleus_course.prediction.results import ResultsFolder

        model = self.model() if model is None else model
        results = ResultsFolder(self.out, self.settings(model), overwrite)
        threshold = self.threshold(model)
        return Work(model, results, threshold, self.overlay, self.reading, self.how, self.outputs())

    def key(self) -> str:
        """Text that identifies the recipe."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps(values, default=str, sort_keys=True)
