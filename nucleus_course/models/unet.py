"""A small U-Net: an example of the methods that classify pixels first and form objects afterwards.

Ronneberger et al. 2015: a contracting path, an expanding path, and skip connections that carry detail across. The
output are two maps of the image's size: the probability that a pixel is *nucleus*, and that it is *interior*, a nucleus
without its outermost ring. Together they express the three classes background, boundary and interior of Caicedo et al.
2019 (Cytometry A 95:952). Pixels where two nuclei come close weigh more in the loss, as in the U-Net paper.
:mod:`nucleus_course.prediction.unet_objects` turns the maps into nuclei.
"""

import keras
from keras import layers, ops

from nucleus_course.models.layers import replicas

MAPS = ("nucleus", "interior")


def build_unet(config, dtype="float32"):
    """The network as a functional model: (B, H, W, 3) float -> logits (B, H, W, 2) float32, H and W multiples of
    ``config.pad_multiple``."""

    def twice(x, filters, name):
        """Two 3x3 convolutions with BatchNorm and ReLU; (B, H, W, C) -> (B, H, W, filters)."""
        for number in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
                              name=f"{name}_conv{number}", dtype=dtype)(x)  # fmt: skip
            x = layers.BatchNormalization(
                epsilon=config.norm_epsilon, name=f"{name}_bn{number}", dtype=dtype
            )(x)
            x = layers.ReLU(dtype=dtype)(x)
        return x

    image = keras.Input((None, None, 3), name="image", dtype="float32")
    x, skips = image, []
    for level, filters in enumerate(config.widths[:-1], start=1):
        x = twice(x, filters, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=dtype)(x)
    x = twice(x, config.widths[-1], "bottom")
    for level, filters in reversed(list(enumerate(config.widths[:-1], start=1))):
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up{level}_grow", dtype=dtype)(x)
        x = layers.Concatenate(dtype=dtype)([skips[level - 1], x])
        x = twice(x, filters, f"up{level}")
    # Nuclei cover the smaller part of an image: start from a low probability, not from one half.
    bias = keras.initializers.Constant(-1.5)
    return keras.Model(
        image,
        layers.Conv2D(len(MAPS), 1, bias_initializer=bias, name="maps", dtype="float32")(x),
        name="unet",
    )


def pixel_targets(labels, config):
    """The target maps from label images, in the graph.

    A pixel is interior if its whole neighbourhood of ``boundary`` pixels has its label; the image's edge is no
    boundary. Its weight is ``1 + touch_weight`` if two nuclei are within ``reach`` pixels of it. Labels below 0
    are left out (weight 0).

    Args:
        labels: (B, H, W) int32.

    Returns:
        target (B, H, W, 2) float32 of zeros and ones, weight (B, H, W, 1) float32.
    """
    label = ops.cast(labels, "float32")[..., None]  # exact up to 2^24
    absent = 2.0**24

    def highest(x, reach):
        return ops.max_pool(x, 2 * reach + 1, strides=1, padding="same")

    def lowest(x, reach):
        return -highest(-x, reach)

    nucleus = label > 0
    alike = ops.logical_and(
        highest(label, config.boundary) == label, lowest(label, config.boundary) == label
    )
    interior = ops.logical_and(nucleus, alike)
    first = lowest(ops.where(nucleus, label, absent), config.reach)
    last = highest(ops.where(nucleus, label, 0.0), config.reach)
    between = ops.logical_and(last > 0, first < last)  # two different labels are near
    weight = ops.where(label < 0, 0.0, 1.0 + config.touch_weight * ops.cast(between, "float32"))
    return ops.cast(ops.concatenate([nucleus, interior], axis=-1), "float32"), weight


def map_losses(logits, target, weight):
    """Weighted cross-entropy plus (1 - Dice) of each map: (2,) float32.

    Args:
        logits, target: (B, H, W, 2) float32; weight: (B, H, W, 1) float32.
    """
    # log(1 + e^x) - x t, in a form that does not overflow
    entropy = ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    entropy = ops.sum(entropy * weight, axis=(0, 1, 2)) / ops.maximum(ops.sum(weight), 1.0)
    there = ops.cast(weight > 0, "float32")
    probability = ops.sigmoid(logits) * there
    shared = ops.sum(probability * target, axis=(0, 1, 2))
    total = ops.sum(probability + target * there, axis=(0, 1, 2))
    return entropy + 1.0 - (2.0 * shared + 1.0) / (total + 1.0)


class UNetNetwork(keras.Model):
    """A U-Net for nuclei: the network behind :class:`nucleus_course.prediction.segmenter.UNet`.

    Args:
        config: :class:`~nucleus_course.config.UNetConfig`.
        dtype_policy: of the network except its last layer.
        seed: not used.

    It takes images (B, H, W, 3) float32 from :func:`nucleus_course.data.preprocess.to_network`, or a
    training batch's dict with ``image`` and ``labels``, and returns logits (B, H, W, 2).
    """

    def __init__(self, config, dtype_policy="float32", seed=0, name="unet_model"):
        super().__init__(name=name, dtype="float32")
        self.config = config
        self.loss_weights_ = dict.fromkeys(MAPS, 1.0)
        self.batch_size = None
        self.network = build_unet(config, dtype_policy)
        self.loss_trackers = [keras.metrics.Mean(name=f"{name}_loss") for name in MAPS]
        self.built = True

    def call(self, inputs, training=False):
        return self.network(
            inputs["image"] if isinstance(inputs, dict) else inputs, training=training
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        values = map_losses(y_pred, *pixel_targets(x["labels"], self.config))
        total = 0.0
        for number, tracker in enumerate(self.loss_trackers):
            tracker.update_state(values[number])
            total = total + values[number] * self.loss_weights_[MAPS[number]]
        return total / replicas()
