"""The two heads on pooled features: class and box, and mask (Mask R-CNN, section 3)."""

import keras
from keras import layers, ops

from nucleus_course.prediction.engines import winograd
from nucleus_course.prediction.engines.folded import add_bias, convolve, fold

CLASSES = 2  # background, nucleus


class BoxHead(keras.layers.Layer):
    """(M, 7, 7, C) -> class logits (M, 2) and box deltas (M, 2, 4), float32.

    Two fully connected layers, as Matterport's 7x7 and 1x1 convolutions; BatchNorm if ``config.head_norm``.
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
    """(M, 14, 14, C) -> mask logits (M, 28, 28, 2), float32: four 3x3 convolutions, one doubling, one 1x1."""

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

    def nucleus(self, pooled):
        """The nucleus class alone, in prediction: (M, 14, 14, C) -> logits (M, 28, 28), float32.

        BatchNorm is folded, and the doubling is one matrix product a cell: with a 2x2 kernel and a stride of 2
        no two input cells meet in an output cell. Wide convolutions in float32 go Winograd's way on a CPU.
        """
        if not winograd.pays(self.convolutions):
            x = pooled
            for i, layer in enumerate(self.convolutions):
                x = ops.relu(convolve(layer, x, self.norms[i] if self.norms else None))
            return self._doubled(x)
        folded = []
        for i, layer in enumerate(self.convolutions):
            kernel, bias = (
                fold(layer.kernel, layer.bias, self.norms[i])
                if self.norms
                else (layer.kernel, layer.bias)
            )
            folded.append((winograd.transform_kernel(kernel), bias))

        def nucleus(x):
            for kernel, bias in folded:
                x = ops.relu(add_bias(winograd.convolve_3x3(x, kernel), bias))
            return self._doubled(x)

        logits = winograd.in_chunks(nucleus, ops.cast(pooled, "float32"))
        return ops.reshape(logits, (-1, 2 * self.input_shape_[1], 2 * self.input_shape_[2]))

    def _doubled(self, x):
        """The doubling and the last 1x1 convolution: (M, 14, 14, C) -> logits (M, 28, 28), float32."""
        side, width = self.input_shape_[1], self.deconv.filters
        kernel = ops.transpose(self.deconv.kernel, (3, 0, 1, 2))  # (in, row, column, out)
        kernel = ops.cast(ops.reshape(kernel, (-1, 4 * width)), x.dtype)
        x = ops.matmul(ops.reshape(x, (-1, kernel.shape[0])), kernel)
        x = ops.relu(add_bias(x, ops.tile(self.deconv.bias, (4,))))
        x = ops.matmul(
            ops.reshape(x, (-1, width)), ops.cast(self.logits.kernel[0, 0, :, 1:], x.dtype)
        )
        x = ops.cast(x, "float32") + self.logits.bias[1]
        x = ops.transpose(ops.reshape(x, (-1, side, side, 2, 2)), (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, 2 * side, 2 * side))
