"""Shared by the tests of model, training and prediction: a network of a few thousand weights, and images of discs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from nucleus_course.config import AugmentConfig, Preset, StageConfig, Thresholds, TrainingConfig
from nucleus_course.data.dataset import Record
from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.presets import get_preset

ROOT = Path(__file__).resolve().parents[1]


def tiny_config(**changes):
    """``compact`` with all its parts, each as small as possible."""
    small = dict(
        name="tiny",
        input="colour",
        widths=(8, 8, 16, 16),
        blocks=(1, 1, 1, 1),
        pyramid_channels=8,
        rpn_channels=8,
        box_head_channels=16,
        mask_head_channels=8,
        rpn_anchors_per_image=32,
        pre_nms=(64, 64),
        post_nms=(64, 64),
        rois_per_image=16,
        mask_slots_per_image=4,
        max_nuclei=16,
        max_detections=20,
    )
    return dataclasses.replace(get_preset("compact").model, **{**small, **changes})


def tiny_preset(model=None, augment=None, thresholds=None, **training):
    """A :class:`Preset` around :func:`tiny_config`: two images a step, crops of 64, float32."""
    small = dict(
        stages=(StageConfig("all", layers="all", epochs=2, rate=1e-3),),
        batch_size=2,
        crop=64,
        dtype="float32",
        optimizer="adamw",
        workers=2,
        validate_every=0,
    )
    return Preset(
        model=model or tiny_config(),
        training=TrainingConfig(**{**small, **training}),
        augment=augment or AugmentConfig(),
        thresholds=thresholds or Thresholds(),
    )


def discs(height, width, count, rng, radius=(4, 9)):
    """A label map int32 (height, width) of up to ``count`` discs that do not overlap, and its picture."""
    labels = np.zeros((height, width), "int32")
    y, x = np.mgrid[:height, :width] + 0.5
    for _ in range(50 * count):
        if labels.max() == count:
            break
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(*radius)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < r * r
        if inside.any() and not labels[inside].any():
            labels[inside] = labels.max() + 1
    return labels, picture(labels, rng)


def picture(labels, rng):
    """uint8 (H, W, 3): bright nuclei on a dark ground, with noise."""
    grey = np.where(labels > 0, 150 + 7 * (labels % 10), 30) + rng.normal(0, 6, labels.shape)
    return np.repeat(np.clip(grey, 0, 255).astype("uint8")[..., None], 3, axis=2)


class FakeDataset:
    """The part of :class:`nucleus_course.data.Dataset` that training and prediction use."""

    name, split, synthetic = "discs", "all", True

    def __init__(self, records):
        self.records = list(records)
        self.ids = tuple(r.id for r in self.records)
        self.types = {r.id: r.type for r in self.records}
        self.counts = {r.id: r.count for r in self.records}

    def __len__(self):
        return len(self.records)

    def __iter__(self):
        return iter(self.records)

    def __getitem__(self, key):
        return self.records[self.ids.index(key) if isinstance(key, str) else key]

    def preload(self, workers=None):
        return self


def write_annotated(folder, name, image, masks):
    """An image and its masks (H, W) bool in BBBC038's layout, below a folder of that name."""
    place = folder / name
    (place / "images").mkdir(parents=True), (place / "masks").mkdir()
    Image.fromarray(image).save(place / "images" / f"{name}.png")
    for index, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(place / "masks" / f"{index}.png")


def disc_dataset(images=6, side=80, count=6, types=("small fluorescent",), seed=3):
    """A data set of ``images`` images of discs, of the types ``types`` in turn."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(images):
        labels, image = discs(side, side + 8, count, rng)
        records.append(Record(f"{i:03d}", image, labels, types[i % len(types)]))
    return FakeDataset(records)


def ground_truth(labels, slots):
    """Label maps (B, H, W) as a training batch holds them: labels, boxes (B, slots, 4), ids (B, slots)."""
    from nucleus_course.data.labels import pad_ground_truth

    rows = []
    for i, one in enumerate(labels):
        ids, boxes = boxes_from_labels(one)
        rows.append(pad_ground_truth(one, boxes, ids, slots, seed=i))
    return tuple(np.stack(part) for part in zip(*rows))


def random_boxes(rng, count, height, width, smallest=2.0, largest=60.0):
    """(count, 4) float32 boxes (y1, x1, y2, x2) with fractional corners inside height x width."""
    size = rng.uniform(smallest, [min(largest, height), min(largest, width)], (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * ([height, width] - size)
    return np.concatenate([corner, corner + size], axis=1).astype("float32")


def lively_model(thresholds=None, **changes):
    """A tiny model whose random weights find many nuclei, with different scores (backends order ties differently)."""
    from nucleus_course.models.weights.folder import named_variables
    from nucleus_course.prediction.segmenter import build

    model = build(tiny_config(**changes), thresholds, seed=2)
    rng = np.random.default_rng(0)
    for name, variable in sorted(named_variables(model.network).items()):
        if name.endswith("kernel"):
            scale = {"rpn_class_raw": 1.0, "mrcnn_class_logits": 0.05, "mrcnn_mask": 1.0}.get(
                name.split("/")[0]
            )
            scale = scale or np.sqrt(2.0 / np.prod(variable.shape[:-1]))
            variable.assign(rng.normal(0, scale, tuple(variable.shape)).astype("float32"))
    return model


def gradient(function, array):
    """d sum(function(array)) / d array on whatever backend Keras runs on, as NumPy."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(array)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x))
        return tape.gradient(total, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).sum())(array))
    import torch

    x = torch.tensor(array, requires_grad=True)
    function(x).sum().backward()
    return x.grad.numpy()


def python(code, *args, backend=None, timeout=600, **env):
    """Run Python code in a new process, with the tests' helpers on its path; CompletedProcess with text."""
    paths = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        **env,
    }
    if backend:
        environment["KERAS_BACKEND"] = backend
    if backend == "jax":  # in a test JAX mostly compiles: do it quickly, and once
        flags = ("--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true")
        environment["XLA_FLAGS"] = " ".join([environment.get("XLA_FLAGS", ""), *flags])
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    words = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout)
