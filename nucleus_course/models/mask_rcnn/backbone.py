"""The trunks: ResNet-50 and ResNet-101 (He et al. 2016), and a thin one for two CPU cores.

Layers have the names of Matterport's Mask_RCNN (``res4b_branch2a``, ``bn4b_branch2a``), so that training
stages can select them by pattern and published weights map one to one. ResNet-50/101 follow it too: the
stride is in a block's first 1x1 convolution, and every convolution has a bias.
"""

import string

import keras
from keras import layers

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def block_names(stage, count):
    """Blocks of a stage: res4a, res4b, … res4w for the 23 of ResNet-101."""
    return [f"res{stage}{letter}" for letter in string.ascii_lowercase[:count]]


def blocks_beyond(old, new):
    """The blocks that a thin trunk has and a shallower one lacks: {name: the scale of its last BatchNorm}.

    With a scale of zero such a block is the identity, so a network can grow by it without changing its output
    (Chen et al. 2016, section 3.2). Empty unless both configs are of thin trunks and ``new`` is deeper.
    """
    if not all(getattr(config, "backbone", None) == "thin" for config in (old, new)):
        return {}
    names = [
        n
        for stage, (a, b) in enumerate(zip(old.blocks, new.blocks), 2)
        for n in block_names(stage, b)[max(1, a) :]
    ]
    return {name: f"{name.replace('res', 'bn')}_branch2b/gamma" for name in names}


def _norm(name, epsilon, dtype):
    return layers.BatchNormalization(name=name, epsilon=epsilon, dtype=dtype)


def _convolution(x, filters, kernel, name, dtype, stride=1, bias=True):
    return layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=bias, name=name,
        kernel_initializer="he_normal", dtype=dtype,
    )(x)  # fmt: skip


def _bottleneck(x, filters, name, stride, project, epsilon, dtype):
    """1x1, 3x3, 1x1 convolutions and a shortcut; (B, H, W, C) -> (B, H/stride, W/stride, 4 * filters)."""
    norm = name.replace("res", "bn")
    y = x
    for branch, channels, kernel, step in (
        ("2a", filters, 1, stride),
        ("2b", filters, 3, 1),
        ("2c", 4 * filters, 1, 1),
    ):
        y = _convolution(y, channels, kernel, f"{name}_branch{branch}", dtype, step)
        y = _norm(f"{norm}_branch{branch}", epsilon, dtype)(y)
        if branch != "2c":
            y = layers.ReLU(dtype=dtype)(y)
    if project:
        x = _convolution(x, 4 * filters, 1, f"{name}_branch1", dtype, stride)
        x = _norm(f"{norm}_branch1", epsilon, dtype)(x)
    return layers.ReLU(name=f"{name}_out", dtype=dtype)(layers.Add(dtype=dtype)([y, x]))


def _basic(x, filters, name, stride, epsilon, dtype):
    """Two 3x3 convolutions and a shortcut (ResNet-18's block); convolutions without bias."""
    norm = name.replace("res", "bn")
    y = x
    for branch, step in (("2a", stride), ("2b", 1)):
        y = _convolution(y, filters, 3, f"{name}_branch{branch}", dtype, step, bias=False)
        y = _norm(f"{norm}_branch{branch}", epsilon, dtype)(y)
        if branch == "2a":
            y = layers.ReLU(dtype=dtype)(y)
    if stride != 1 or x.shape[-1] != filters:
        x = _convolution(x, filters, 1, f"{name}_branch1", dtype, stride, bias=False)
        x = _norm(f"{norm}_branch1", epsilon, dtype)(x)
    return layers.ReLU(name=f"{name}_out", dtype=dtype)(layers.Add(dtype=dtype)([y, x]))


def _resnet(image, config, dtype):
    epsilon = config.norm_epsilon
    x = layers.ZeroPadding2D(3, dtype=dtype)(image)
    x = layers.Conv2D(64, 7, strides=2, name="conv1", kernel_initializer="he_normal", dtype=dtype)(
        x
    )
    x = layers.ReLU(dtype=dtype)(_norm("bn_conv1", epsilon, dtype)(x))
    if config.pool_padding == "symmetric":  # as in keras.applications
        x = layers.ZeroPadding2D(1, dtype=dtype)(x)
        x = layers.MaxPooling2D(3, 2, padding="valid", dtype=dtype)(x)
    else:
        x = layers.MaxPooling2D(3, 2, padding="same", dtype=dtype)(x)
    stages = []
    for stage, (count, filters) in enumerate(
        zip(BLOCKS[config.backbone], (64, 128, 256, 512)), start=2
    ):
        for i, name in enumerate(block_names(stage, count)):
            stride = 2 if i == 0 and stage > 2 else 1
            x = _bottleneck(x, filters, name, stride, i == 0, epsilon, dtype)
        stages.append(x)
    return stages


def _thin(image, config, dtype):
    epsilon = config.norm_epsilon
    # Stride 2 and no pooling: C2 at stride 2 on native pixels corresponds to stride 4 on upsampled ones.
    x = _convolution(image, config.widths[0], 3, "conv1", dtype, 2, bias=False)
    x = layers.ReLU(dtype=dtype)(_norm("bn_conv1", epsilon, dtype)(x))
    stages = []
    for stage, (count, filters) in enumerate(zip(config.blocks, config.widths), start=2):
        for i, name in enumerate(block_names(stage, count)):
            x = _basic(x, filters, name, 2 if i == 0 and stage > 2 else 1, epsilon, dtype)
        stages.append(x)
    return stages


def build_backbone(config, dtype="float32"):
    """The trunk as a functional model: (B, H, W, 3) float -> [C2, C3, C4, C5].

    Strides are 4, 8, 16, 32 for the ResNets and 2, 4, 8, 16 for ``thin``.
    """
    image = keras.Input((None, None, 3), name="image", dtype="float32")
    stages = (_thin if config.backbone == "thin" else _resnet)(image, config, dtype)
    return keras.Model(image, stages, name="backbone")
