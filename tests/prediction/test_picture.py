"""Detections in a notebook cell, read back from the HTML."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nucleus_course.config import Thresholds
from nucleus_course.data.canonical import canonical
from nucleus_course.prediction import picture
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.label_detections import LabelDetections
from nucleus_course.prediction.picture import CELL_BYTES, ORANGE, colour_labels


class Cell(HTMLParser):
    """The attributes of the image and the text of a cell."""

    def __init__(self, text):
        super().__init__()
        self.image, self.words = {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.image = dict(attributes)

    def handle_data(self, data):
        self.words += data

    def png(self):
        return base64.b64decode(self.image["src"].removeprefix("data:image/png;base64,"))

    def pixels(self):
        return np.array(Image.open(io.BytesIO(self.png())))


def found(image=None, shape=(60, 80), scores=(0.9, 0.8, 0.2)):
    labels = np.zeros(shape, "int32")
    for number in range(len(scores)):
        labels[5:15, 20 * number + 2 : 20 * number + 12] = number + 1
    result = LabelDetections.from_labels(labels, scores, Thresholds(score=0.5))
    result.image = image
    return result


def test_without_the_image_the_labels_are_coloured():
    cell = Cell(found()._repr_html_())
    labels = found().label_image()
    assert (cell.pixels() == colour_labels(labels)).all()
    assert len(np.unique(cell.pixels().reshape(-1, 3), axis=0)) == 3  # background and two nuclei
    assert cell.image["alt"] == "2 nuclei as colours, 60 x 80 pixels"
    assert cell.words == "2 nuclei with a score of at least 0.5, of 3 detections"
    assert int(cell.image["width"]) == 240, "small images are enlarged"


@pytest.mark.parametrize("dtype, top", [("uint8", 255), ("uint16", 65535), ("float64", 1)])
def test_with_the_image_the_outlines_are_drawn_on_it(dtype, top):
    image = np.linspace(0, top, 60 * 80).reshape(60, 80).astype(dtype)
    cell = Cell(found(image)._repr_html_())
    pixels = cell.pixels()
    on = (pixels == ORANGE).all(axis=2)
    assert on.sum() == 2 * (4 * 10 - 4) and on[5, 2] and not on[6, 3]
    assert pixels[59, 79].tolist() == [255] * 3
    assert cell.image["alt"] == "2 nuclei outlined on the image, 60 x 80 pixels"


def test_else_the_outlines_are_on_what_the_network_saw():
    seen = found()
    image = np.random.default_rng(0).integers(0, 1000, (60, 80)).astype("uint16")
    seen.canonical = canonical(image)
    pixels = Cell(seen._repr_html_()).pixels()
    on = (pixels == ORANGE).all(axis=2)
    assert on.sum() == 72 and (pixels == seen.canonical.rgb)[~on].all()


def test_a_large_noisy_image_stays_small():
    image = np.random.default_rng(0).integers(0, 255, (1500, 900, 3)).astype("uint8")
    cell = Cell(found(image, (1500, 900))._repr_html_())
    assert len(cell.png()) < CELL_BYTES
    height, width = cell.pixels().shape[:2]
    assert abs(height / width - 1500 / 900) < 0.05 and "1500 x 900" in cell.image["alt"]


def test_no_detections():
    cell = Cell(found(scores=())._repr_html_())
    assert not cell.pixels().any() and cell.words.startswith("0 nuclei") and cell.image["alt"]


def test_fewer_are_shown_with_the_same_image():
    image = np.zeros((60, 80), "uint8")
    assert found(image).confident(0.85).image is image


def test_matplotlib_is_not_touched():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np\n"
        "from nucleus_course.prediction.label_detections import LabelDetections as L\n"
        "L.from_labels(np.eye(4, dtype=int), [0.9])._repr_html_()\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_a_slide_a_cell_shows_a_line(monkeypatch):
    boxes = np.array([[2, 2, 9, 9], [20, 20, 30, 30]], "float32")
    found = Detections(boxes, np.float32([0.9, 0.2]), np.ones((2, 7, 7)), boxes, 60, 80)
    assert "<img" in found._repr_html_()
    monkeypatch.setattr(picture, "LARGE", 60 * 80)
    text = found._repr_html_()
    assert "<img" not in text and "1 nucleus with" in text and "60 x 80" in text
