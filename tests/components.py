"""A perfect detector of connected components that stands in for a network, and images for it."""

from types import SimpleNamespace

import numpy as np
from scipy import ndimage
from tiny import tiny_config

from nucleus_course.config import Thresholds


class Components:
    """An engine that returns the bright connected components of its input, at most ``most`` per call."""

    def __init__(self, most=10_000):
        self.most, self.calls = most, 0

    def candidates(self, prepared):
        self.calls += 1
        height, width = (int(v) for v in prepared.window)
        labels, count = ndimage.label(prepared.input[0, :height, :width, 0] > 0)
        slices = ndimage.find_objects(labels)[: self.most]
        boxes = [[s[0].start, s[1].start, s[0].stop, s[1].stop] for s in slices]
        boxes = np.array(boxes, "float32").reshape(-1, 4)
        scores = np.linspace(0.99, 0.6, len(boxes), dtype="float32")
        return labels, boxes[None], scores[None]

    def masks(self, labels, boxes, prepared, size=28):
        found = np.zeros((len(boxes), size, size), "float32")
        for grid, (y1, x1, y2, x2) in zip(found, boxes):
            rows, columns = (
                (np.floor(low + (np.arange(size) + 0.5) * (high - low) / size)).astype(int)
                for low, high in ((y1, y2), (x1, x2))
            )
            piece = labels[int(y1) : int(y2), int(x1) : int(x2)]
            label = np.bincount(piece[piece > 0]).argmax()
            rows = np.clip(rows, 0, labels.shape[0] - 1)
            columns = np.clip(columns, 0, labels.shape[1] - 1)
            grid[...] = labels[np.ix_(rows, columns)] == label
        return found


def model_of(engine=None, thresholds=None, **changes):
    config = tiny_config(mask_roi_scale=1.0, mask_scoring=False, max_detections=400, **changes)
    return SimpleNamespace(
        config=config,
        kind="mask_rcnn",
        network=SimpleNamespace(weights=[]),
        thresholds=thresholds or Thresholds(score=0.5),
        rescorer=None,
        novelty=None,
        engine=engine or Components(),
    )


def slide_model():
    """A model for `predict_many` that treats images of 10,000 pixels or more as slides."""
    from nucleus_course.data import slides
    from nucleus_course.prediction import tiles

    slides.LARGE = 10_000
    model = model_of(input="canonical")
    model.predict = lambda image, **how: tiles.predict_image(model, image, model.thresholds, **how)
    return model


def dots(rows, columns, step=25, radius=7, shift=0):
    """An image of round nuclei on a grid, and how many there are."""
    y, x = np.mgrid[: rows * step, : columns * step]
    centre = step // 2 + shift
    inside = ((y % step - centre) ** 2 + (x % step - centre) ** 2) <= radius**2
    return np.where(inside, 200, 0).astype("uint8"), rows * columns


def agreement(a, b, threshold=0.9):
    """F1 of two label images at an IoU."""
    shared = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(shared, (a.ravel(), b.ravel()), 1)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    hits = (shared[1:, 1:] / union[1:, 1:] > threshold).sum()
    return 2 * hits / (a.max() + b.max())
