"""The two heads on pooled features: class and box, and mask (Mask R-CNN, section 3)."""

import keras
from keras import layers, ops

CLASSES = 2  # background, nucleus


class BoxHead(keras.layers.Layer):
    """(M, 7, 7, C) -> class logits (M, 2) and box deltas (M, 2, 4), float32.

    Two fully connected layers, equal to Matterport's 7x7 and 1x1 convolutions; BatchNorm if ``config.head_norm``.
    """

    def __init__(self, config, dtype="float32", **kwargs):
        super().__init__(name="box_head", dtype=dtype, **kwargs)
        policy = self.dtype_policy
        channels = config.box_head_channels
        self.flatten = layers.Flatten(dtype=policy)
        self.fc = [
            layers.Dense(
                channels, name=f"mrcnn_class_conv{i}", kernel_initializer="he_normal", dtype=policy
            )
            for i in (1, 2)
        ]
        self.norms = [
            layers.BatchNormalization(
                name=f"mrcnn_class_bn{i}", epsilon=config.norm_epsilon, dtype=policy
            )
            for i in (1, 2)
            if config.head_norm
        ]
        self.logits = layers.Dense(CLASSES, name="mrcnn_class_logits", dtype="float32")
        self.deltas = layers.Dense(4 * CLASSES, name="mrcnn_bbox_fc", dtype="float32")
        self.input_shape_ = (None, config.box_pool, config.box_pool, config.pyramid_channels)

    def build(self, input_shape=None):
        size = self.input_shape_
        self.flatten.build(size)
        width = size[1] * size[2] * size[3]
        for i, layer in enumerate(self.fc):
            layer.build((None, width))
            width = layer.units
            if self.norms:
                self.norms[i].build((None, width))
        self.logits.build((None, width))
        self.deltas.build((None, width))
        self.built = True

    def call(self, pooled, training=False, valid=None):
        """``valid`` (M,) bool: rows that BatchNorm may learn from."""
        x = self.flatten(pooled)
        for i, layer in enumerate(self.fc):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, training=training, mask=valid)
            x = ops.relu(x)
        return self.logits(x), ops.reshape(self.deltas(x), (-1, CLASSES, 4))


class MaskHead(keras.layers.Layer):
    """(M, 14, 14, C) -> mask logits (M, 28, 28, 2), float32: four 3x3 convolutions, one transposed, one 1x1."""

    def __init__(self, config, dtype="float32", **kwargs):
        super().__init__(name="mask_head", dtype=dtype, **kwargs)
        policy = self.dtype_policy
        channels = config.mask_head_channels
        self.convolutions = [
            layers.Conv2D(
                channels,
                3,
                padding="same",
                name=f"mrcnn_mask_conv{i}",
                kernel_initializer="he_normal",
                dtype=policy,
            )
            for i in range(1, 5)
        ]
        self.norms = [
            layers.BatchNormalization(
                name=f"mrcnn_mask_bn{i}", epsilon=config.norm_epsilon, dtype=policy
            )
            for i in range(1, 5)
            if config.head_norm
        ]
        self.deconv = layers.Conv2DTranspose(
            channels, 2, strides=2, activation="relu", name="mrcnn_mask_deconv",
            kernel_initializer="he_normal", dtype=policy,
        )  # fmt: skip
        self.logits = layers.Conv2D(CLASSES, 1, name="mrcnn_mask", dtype="float32")
        self.input_shape_ = (None, config.mask_pool, config.mask_pool, config.pyramid_channels)

    def build(self, input_shape=None):
        none, height, width, channels = self.input_shape_
        for i, layer in enumerate(self.convolutions):
            layer.build((none, height, width, channels))
            channels = layer.filters
            if self.norms:
                self.norms[i].build((none, height, width, channels))
        self.deconv.build((none, height, width, channels))
        self.logits.build((none, 2 * height, 2 * width, channels))
        self.built = True

    def call(self, pooled, training=False, valid=None):
        """``valid`` (M,) bool: rows that BatchNorm may learn from."""
        x = pooled
        if valid is not None:
            valid = ops.broadcast_to(valid[:, None, None], ops.shape(pooled)[:3])
        for i, layer in enumerate(self.convolutions):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, training=training, mask=valid)
            x = ops.relu(x)
        return self.logits(self.deconv(x))
