"""Training batches: crops, augmented, with their ground truth, as a keras ``PyDataset``."""

import threading
import time

import keras
import numpy as np

from nucleus_course.data.augment import Augmenter
from nucleus_course.data.canonical import TRAINING_STAINS, canonical
from nucleus_course.data.labels import boxes_from_labels, pad_ground_truth
from nucleus_course.data.preprocess import resize, see, to_network
from nucleus_course.data.sources import source_groups
from nucleus_course.presets import gentle


class TrainingBatches(keras.utils.PyDataset):
    """Batches of the epoch ``self.epoch``, which depend only on (seed, epoch, index), not on threads.

    The training loop sets ``epoch``. Keras's hooks cannot: ``fit`` calls ``on_epoch_end`` once before the
    first batch, too.

    Args:
        dataset: :class:`~nucleus_course.data.Dataset`; decoded into memory at once.
        preset: :class:`~nucleus_course.config.Preset`, for its model, training and augmentation.
        seed: overrides ``preset.training.seed``.
        epoch: the first epoch.

    An item is ``({"image", "labels", "boxes", "ids"},)``: image (B, crop, crop, 3) float32, labels
    (B, crop, crop) int32, boxes (B, G, 4) float32 network pixels, ids (B, G) int32, 0 for padding.
    """

    def __init__(self, dataset, preset, seed=None, epoch=0, workers=None):
        training = preset.training
        super().__init__(workers=training.workers if workers is None else workers, max_queue_size=8)
        self.records = dataset.preload()
        self.ids = list(dataset.ids)
        self.config, self.training = preset.model, training
        self.seed = training.seed if seed is None else seed
        self.epoch = epoch
        self.batch_size = training.batch_size
        side = training.crop / preset.model.upsample
        if side != int(side):
            raise ValueError(
                f"crop {training.crop} is not a multiple of upsample {preset.model.upsample}"
            )
        self.augmenters = [
            Augmenter(a, int(side)) for a in (preset.augment, gentle(preset.augment))
        ]
        self.gentle = False  # set by the training loop: use the gentle augmentation
        types = dataset.types
        groups = source_groups(types) if training.balance_by == "sources" else types
        factors = [training.type_factors.get(types[i], 1.0) for i in self.ids]
        self.weights = _weights([groups[i] for i in self.ids], training.balance_types, factors)
        self.images = {}
        self._order = (None, None)
        self._lock = threading.Lock()
        self.finished = {}  # index -> time at which its batch was ready, to measure waiting

    def __len__(self):
        return self.training.steps_per_epoch or -(-len(self.ids) // self.batch_size)

    def order(self, epoch):
        """Positions in the data set for an epoch: (steps * batch,) int, a shuffle or a weighted draw."""
        with self._lock:
            if self._order[0] != epoch:
                rng = np.random.default_rng((self.seed, epoch))
                need = len(self) * self.batch_size
                if self.weights is None:
                    rounds = -(-need // len(self.ids))
                    picks = np.concatenate([rng.permutation(len(self.ids)) for _ in range(rounds)])[
                        :need
                    ]
                else:
                    picks = _systematic(self.weights, need, rng)
                self._order = (epoch, picks)
            return self._order[1]

    def __getitem__(self, index):
        epoch, size = self.epoch, self.batch_size
        picks = self.order(epoch)[index * size : (index + 1) * size]
        rows = [self.crop(pick, epoch, index * size + i) for i, pick in enumerate(picks)]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        self.finished[index] = time.perf_counter()
        return (batch,)

    def crop(self, pick, epoch, index):
        """One training example as a dict of arrays without the batch axis."""
        images, labels = self._views(pick)
        chosen = np.random.default_rng((self.seed, epoch, index, 1)).integers(len(images))
        image = images[int(chosen)]
        image, labels = self.augmenters[self.gentle](image, labels, (self.seed, epoch, index))
        image = to_network(image, self.config)
        if self.config.upsample != 1.0:
            labels = resize(labels, self.config.upsample)
        ids, boxes = boxes_from_labels(labels)
        labels, boxes, ids = pad_ground_truth(labels, boxes, ids, self.config.max_nuclei, index)
        return {"image": image, "labels": labels.astype("int32"), "boxes": boxes, "ids": ids}

    def _views(self, pick):
        """The views of an image, a tuple of uint8 (H, W, 3), and its labels.

        In canonical grey, stained tissue has several views with different weights of red, green and blue, because
        other laboratories use other dyes.
        """
        if pick not in self.images:  # if two threads do this, the result is the same
            record = self.records[pick]
            seen = see(record.raw, self.config)
            images = (seen.pixels,)
            if seen.canonical is not None and seen.canonical.stain:
                images += tuple(canonical(record.raw, stain_weights=w).rgb for w in TRAINING_STAINS)
            self.images[pick] = (images, record.labels)
        return self.images[pick]


def _weights(groups, balance, factors):
    """Probability of each image. ``balance`` goes from 0, all images equal (None), to 1, all groups equal.

    ``factors``, one for each image, then multiply.
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    factors = np.asarray(factors)
    if not balance and (factors == 1).all():
        return None
    weight = (counts ** (1.0 - balance) / counts)[inverse] * factors
    return weight / weight.sum()


def _systematic(weights, count, rng):
    """``count`` positions, shuffled, each drawn weights * count times, rounded up or down."""
    edges = np.cumsum(weights[(turn := rng.permutation(len(weights)))])
    ticks = (np.arange(count) + rng.random()) / count
    picks = turn[np.minimum(np.searchsorted(edges, ticks), len(weights) - 1)]
    return rng.permutation(picks)
