"""Browse the errors of a class: annotation, detection, difference."""

import numpy as np

from nucleus_course.course.explorers.base import Control, Explorer
from nucleus_course.data.labels import renumber
from nucleus_course.evaluation.errors.taxonomy import CLASSES
from nucleus_course.figures import draw_case, short


class ErrorBrowser(Explorer):
    """The cases of an error analysis, worst first.

    Args:
        dataset, predictions: what was analysed.
        analysis: :class:`~nucleus_course.evaluation.errors.analysis.ErrorAnalysis` of the two.
    """

    title = "Error browser"

    def __init__(self, dataset, predictions, analysis):
        self.dataset, self.predictions, self.analysis = dataset, predictions, analysis
        self.point = analysis.report.operating_point
        self.cases = {}
        for side, table in (("nuclei", analysis.nuclei), ("detections", analysis.detections)):
            for number, name in enumerate(CLASSES):
                rows = np.flatnonzero(table["class"] == number)
                if len(rows) and name != "matched":
                    order = np.argsort(
                        -table["area" if side == "nuclei" else "score"][rows], kind="stable"
                    )
                    self.cases[f"{side}: {name} ({len(rows)})"] = (side, rows[order])
        if not self.cases:
            self.cases["no errors at all"] = ("nuclei", np.zeros(0, int))
        drawn = [name for name in self.cases if "poor boundary" in name] or list(self.cases)
        first = max(drawn, key=lambda name: len(self.cases[name][1]))
        self._painted, self._kind = {}, first
        super().__init__(
            {
                "kind": Control("choice", "Class of error", first, options=tuple(self.cases)),
                "number": Control(
                    "whole", "Case number", 1, low=1, high=max(len(self.cases[first][1]), 1), step=1
                ),
            }
        )

    def adjust(self, values):
        changes = {"high": max(len(self.cases[values["kind"]][1]), 1)}
        if values["kind"] != self._kind:  # start another class with its first case
            self._kind, changes["value"] = values["kind"], 1
        return {"number": changes}

    def _labels(self, image_id):
        """(image, truth, detected) of an image, with labels numbered as in the analysis."""
        if image_id not in self._painted:
            record = self.dataset[image_id]
            found = self.predictions.images[image_id].label_image(
                self.point["score_threshold"], self.point["min_area"]
            )
            self._painted = {image_id: (record.image, renumber(record.labels), found)}
        return self._painted[image_id]

    def _draw(self, kind, number):
        side, rows = self.cases[kind]
        if not len(rows):
            record = self.dataset[0]
            empty = np.zeros(record.labels.shape, bool)
            return draw_case(
                record.image, empty, empty, (0, 0, record.height, record.width), "No errors to show"
            )
        table = self.analysis.nuclei if side == "nuclei" else self.analysis.detections
        number = min(max(number, 1), len(rows))
        index = rows[number - 1]
        image, truth, found = self._labels(str(table["image"][index]))
        label, box = int(table["label"][index]), table["box"][index]
        own = (truth if side == "nuclei" else found) == label
        other = found if side == "nuclei" else truth
        touching = np.unique(other[own])
        partner = np.isin(other, touching[touching > 0])
        masks = (own, partner) if side == "nuclei" else (partner, own)
        score = "" if side == "nuclei" else f", score {float(table['score'][index]):.2f}"
        title = f"Case {number} of {len(rows)}, {kind.split(' (')[0]}{score}, image {short(str(table['image'][index]))}"
        return draw_case(image, *masks, box, title, around=(truth, found))
