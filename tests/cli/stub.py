"""A detector without a network, for tests of what `predict` does around it: `python -c "import cli.stub; cli.stub.main()"`."""

import os
import time
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy import ndimage

from nucleus_course.cli import common, predict
from nucleus_course.config import Thresholds
from nucleus_course.prediction.label_detections import LabelDetections

COUNT = 12  # images of squares


def write_squares(folder):
    """Images in a folder: number n shows n + 1 squares."""
    for number in range(COUNT):
        picture = np.zeros((24, 10 * COUNT), np.uint8)
        for square in range(number + 1):
            picture[5 : 9 + number, 10 * square + 2 : 10 * square + 8] = 200
        Image.fromarray(picture).save(folder / f"image{number:02d}.png")
    return folder


class Stub:
    """Bright spots are nuclei. ``calls`` counts predictions; Each takes ``PAUSE`` seconds (an environment variable)."""

    config, network = SimpleNamespace(name="stub"), SimpleNamespace(weights=[])

    def __init__(self):
        self.calls, self.thresholds = 0, Thresholds()

    def use_engine(self, name, **options):
        return self

    def predict(self, image, **options):
        self.calls += 1
        time.sleep(float(os.environ.get("PAUSE", 0)))
        labels, count = ndimage.label(image > 127)
        return LabelDetections.from_labels(labels, [0.9] * count, self.thresholds)


def install(patch=setattr):
    """Make `predict` use a stub and no backend, and return the stub."""
    stub = Stub()
    patch(common, "open_model", lambda *_: stub)
    patch(predict, "load_backend", lambda name: None)
    patch(predict, "_fastest", lambda runtime: "float32")
    return stub


def main():
    install()
    from nucleus_course.cli import main

    main()
