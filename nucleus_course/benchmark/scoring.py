"""The time of ``evaluate`` on synthetic data of any size."""

import time
from types import SimpleNamespace

import numpy as np

from nucleus_course.evaluation.report import evaluate
from nucleus_course.prediction.interchange import ImagePredictions, Predictions


class _Grid:
    """A minimal data set for ``evaluate``: a label map of discs on a grid, the same for every image."""

    name, split, synthetic = "grid", "all", True

    def __init__(self, images, nuclei, side):
        self.ids = tuple(f"image{i}" for i in range(images))
        across = int(np.ceil(np.sqrt(nuclei)))
        step = side // across
        rows, columns = np.mgrid[:side, :side]
        cell = np.minimum(rows // step, across) * (across + 1) + np.minimum(columns // step, across)
        squared = (rows % step - step / 2) ** 2 + (columns % step - step / 2) ** 2
        inside = squared < (0.4 * step) ** 2
        inside &= (rows < across * step) & (columns < across * step)
        _, numbers = np.unique(cell[inside], return_inverse=True)
        self.labels = np.zeros((side, side), np.int32)
        self.labels[inside] = numbers + 1
        self.labels[self.labels > nuclei] = 0

    def __getitem__(self, image_id):
        return SimpleNamespace(id=image_id, labels=self.labels, type="grid")


def benchmark_evaluate(images=67, detections=3000, nuclei=42, side=384, bootstrap=0, seed=0):
    """Time ``evaluate`` on a synthetic split.

    Args:
        images: how many; each of ``side`` x ``side`` pixels with ``nuclei`` nuclei.
        detections: in all images together; shifted copies of nuclei with random scores.
        bootstrap: samples for the intervals.

    Returns:
        dict: ``images``, ``detections``, ``nuclei``, ``seconds``, ``milliseconds_per_detection``.
    """
    rng = np.random.default_rng(seed)
    dataset = _Grid(images, nuclei, side)
    layers = []
    for _ in range(int(np.ceil(detections / (images * nuclei)))):
        moved = np.roll(dataset.labels, rng.integers(-3, 4, 2), (0, 1))
        layers.append(ImagePredictions.from_labels(moved))
    pool = [(rle, box) for layer in layers for rle, box in zip(layer.rles, layer.boxes)]
    found = {}
    for number, image_id in enumerate(dataset.ids):
        count = detections // images + (number < detections % images)
        own = [pool[i] for i in rng.permutation(len(pool))[:count]]
        boxes = np.array([box for _, box in own], np.float32).reshape(-1, 4)
        rles, scores = [rle for rle, _ in own], rng.uniform(0.02, 1, len(own))
        found[image_id] = ImagePredictions(side, side, rles, scores, boxes)
    predictions = Predictions(found, 0.5)
    start = time.perf_counter()
    report = evaluate(dataset, predictions, bootstrap=bootstrap, progress=False)
    seconds, count = time.perf_counter() - start, predictions.detections
    return {
        "images": images, "detections": count, "nuclei": report.counts["nuclei"],
        "seconds": seconds, "milliseconds_per_detection": 1000 * seconds / max(1, count),
    }  # fmt: skip
