"""Fake data sets and predictions: random label maps, and predictions made from the truth with errors."""

from types import SimpleNamespace

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from nucleus_course.prediction.interchange import ImagePredictions, Predictions


def rle_from_mask(mask):
    """One (H, W) bool mask as a compressed RLE by pycocotools."""
    coded = coco_mask.encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
    return {"size": [int(n) for n in coded["size"]], "counts": coded["counts"].decode("ascii")}


class FakeDataset:
    """``ids`` and records with ``labels``, ``type`` and ``image``, from {id: labels} and optionally {id: type}."""

    name, split, synthetic = "fake", "validation", False

    def __init__(self, labels, types=None, images=None):
        self.ids = tuple(labels)
        self._labels, self._types, self._images = labels, types or {}, images or {}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, key):
        labels = np.asarray(self._labels[key], np.int32)
        image = self._images.get(key)
        if image is None:
            image = np.repeat((60 + 120 * (labels > 0)).astype(np.uint8)[..., None], 3, 2)
        return SimpleNamespace(
            id=key, labels=labels, type=self._types.get(key, "small fluorescent"), image=image
        )


def ellipses(rng, height, width, count, smallest=3, largest=12):
    """A label map of up to ``count`` ellipses; later ones cover earlier ones, ids stay 1..n."""
    rows, columns = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int32)
    for _ in range(count):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        a, b = rng.uniform(smallest, largest, 2)
        angle = rng.uniform(0, np.pi)
        u = (rows + 0.5 - y) * np.cos(angle) + (columns + 0.5 - x) * np.sin(angle)
        v = (columns + 0.5 - x) * np.cos(angle) - (rows + 0.5 - y) * np.sin(angle)
        labels[(u / a) ** 2 + (v / b) ** 2 < 1] = labels.max() + 1
    present = np.unique(labels[labels > 0])
    return np.searchsorted(np.append(0, present), labels).astype(np.int32)


def noisy_detections(rng, labels, extra=3, miss=0.15, twice=0.1):
    """Masks that may overlap, with scores: nuclei moved, grown, shrunk, missed or found twice; and false alarms."""
    height, width = labels.shape
    masks, scores = [], []
    for label in range(1, labels.max() + 1):
        if rng.uniform() < miss:
            continue
        for _ in range(1 + (rng.uniform() < twice)):
            mask = labels == label
            mask = np.roll(mask, rng.integers(-2, 3, 2), (0, 1))
            change = rng.integers(-1, 3)
            if change > 0:
                mask = ndimage.binary_dilation(mask, iterations=change)
            elif change < 0:
                mask = ndimage.binary_erosion(mask)
            if mask.any():
                masks.append(mask)
                scores.append(float(rng.beta(5, 2)))
    for _ in range(extra):
        masks.append(ellipses(rng, height, width, 1) > 0)
        scores.append(float(rng.beta(2, 4)))
    return masks, scores


def image_predictions(masks, scores, shape):
    return ImagePredictions(*shape, [rle_from_mask(m) for m in masks], scores)


def random_case(seed=0, images=6, height=70, width=90, count=14, empty=True):
    """A data set of several types, predictions, and their masks as arrays for the oracles."""
    rng = np.random.default_rng(seed)
    truth, types, found, masks = {}, {}, {}, {}
    for i in range(images):
        key = f"image{i}"
        truth[key] = ellipses(rng, height + 7 * i, width - 5 * i, count)
        types[key] = ("small fluorescent", "purple stain")[i % 2]
        masks[key] = noisy_detections(rng, truth[key])
    if empty:
        for key, has_detections in (("none-none", False), ("none-some", True)):
            truth[key] = np.zeros((40, 30), np.int32)
            masks[key] = noisy_detections(rng, truth[key], extra=2 if has_detections else 0)
        truth["some-none"] = ellipses(rng, 40, 50, 5)
        masks["some-none"] = ([], [])
    for key, (m, s) in masks.items():
        found[key] = image_predictions(m, s, truth[key].shape)
    return FakeDataset(truth, types), Predictions(found, 0.5), masks


def with_boxes(rng, masks, count=6):
    """The same detections of each image, and ``count`` random boxes with random scores."""
    result = {}
    for key, (found, scores) in masks.items():
        found, scores = list(found), list(scores)
        for _ in range(count if found else 0):
            box = np.zeros_like(found[0])
            top, left = rng.integers(0, box.shape[0] - 12), rng.integers(0, box.shape[1] - 12)
            box[top : top + rng.integers(3, 12), left : left + rng.integers(3, 12)] = True
            found.append(box)
            scores.append(float(rng.uniform()))
        result[key] = (found, scores)
    return result
