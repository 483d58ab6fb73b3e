"""A model of fifty weights that trains like Mask R-CNN, for quick tests of the loop."""

import keras
import numpy as np
from keras import ops
from tiny import disc_dataset, tiny_config, tiny_preset

from nucleus_course.config import StageConfig
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.prediction.segmenter import Segmenter

STAGES = (
    StageConfig("heads", layers="heads", epochs=2, rate=1e-2),
    StageConfig("all", layers="all", epochs=2, rate=1e-3),
)


class ToyNetwork(keras.Model):
    """Predicts how much of a crop is nucleus: a trunk with BatchNorm, a head, and noise from its own seed."""

    def __init__(self, units=3, seed=0):
        super().__init__(name="toy", dtype="float32")
        keras.utils.set_random_seed(11)
        self.config = tiny_config()
        self.batch_size, self.loss_weights_ = None, {}
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.convolution = keras.layers.Conv2D(units, 8, strides=8, use_bias=False, name="conv1")
        self.norm = keras.layers.BatchNormalization(name="bn_conv1")
        self.head = keras.layers.Dense(1, name="mrcnn_class_logits")
        self.convolution.build((None, 64, 64, 3))
        self.norm.build((None, 8, 8, units))
        self.head.build((None, units))
        self.built = True

    def call(self, inputs, training=False):
        size = self.batch_size or inputs["image"].shape[0]
        x = ops.relu(self.norm(self.convolution(inputs["image"]), training=training))
        x = self.head(ops.mean(x, axis=(1, 2)))[..., 0]
        return x + 0.1 * keras.random.normal((size,), seed=self.seed_generator) if training else x

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options | {"run_eagerly": True, "jit_compile": False})

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        share = ops.mean(ops.cast(x["labels"] > 0, "float32"), axis=(1, 2))
        return ops.mean((y_pred - share) ** 2)


class Toy(Segmenter):
    """A toy network that :func:`nucleus_course.train` accepts."""

    kind, network_class = "mask_rcnn", ToyNetwork

    def __init__(self, **options):
        super().__init__(ToyNetwork(**options))


def preset(**training):
    """Two stages of two epochs, three steps each."""
    return tiny_preset(**{"stages": STAGES, "optimizer": "adamw", "ema": 0.5, **training})


def dataset():
    return disc_dataset(images=6)


def values(model):
    """{name: array} of everything the model has learned, copied."""
    return {name: variable.numpy() for name, variable in named_variables(model.network).items()}


def assert_same(a, b, but=()):
    """All arrays are equal, bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        if name not in but:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


TIMES = ("seconds", "images_per_s", "waiting")


def timeless(rows):
    """Log rows without times."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
