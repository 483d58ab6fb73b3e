"""Counts of one are singular."""

import re

import numpy as np
import pytest

from nucleus_course._util.text import pluralize
from nucleus_course.figures import draw_case, draw_error_counts, draw_shifted_discs


@pytest.mark.parametrize(
    "words, expected",
    [((1, "pixel"), "1 pixel"), ((0, "pixel"), "0 pixels"), ((1.0, "pixel"), "1 pixel"), ((0.5, "pixel"), "0.5 pixels"),
     ((1, "nucleus", "nuclei"), "1 nucleus"), ((1234567, "nucleus", "nuclei"), "1234567 nuclei"), ((np.int64(1), "image"), "1 image")],
)  # fmt: skip
def test_a_number_and_its_noun(words, expected):
    assert pluralize(*words) == expected


def test_captions_of_the_notebooks_on_evaluation_and_errors():
    class Analysis:
        totals = {"tp": 1}
        counts = {
            "matched": {"nuclei": 1, "detections": 1},
            "split": {"nuclei": 1, "detections": 2},
            "merged": {"nuclei": 2, "detections": 1},
        }

    one = np.zeros((9, 9), bool)
    one[4, 4] = True
    captions = [
        draw_shifted_discs(20, (0, 1, 2))[1],
        draw_error_counts(Analysis)[1],
        draw_case(np.zeros((9, 9, 3), np.uint8), one, one, (4, 4, 5, 5), "A case")[1],
    ]
    assert "0 pixels 1.00, 1 pixel 0.88, 2 pixels 0.78" in captions[0]
    assert (
        captions[1]
        == "1 matched pair. Of the rest: split 1 nucleus and 2 detections; merged 2 nuclei and 1 detection."
    )
    assert "covers 1 pixel here" in captions[2]
    assert not any(re.search(r"(?<![\d.])1 (?!nucleus)\w+s\b", text) for text in captions)
