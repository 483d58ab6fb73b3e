"""The shipped presets: the paper's, the paper's from scratch, ``compact``, and the U-Net baseline.

``paper-*`` follow Johnson (2018) and the nucleus sample of Matterport's Mask_RCNN, which it adapted;
``compact`` is this project's own.
"""

import dataclasses

from nucleus_course._util.errors import UserError
from nucleus_course.config import (
    AugmentConfig,
    ModelConfig,
    Preset,
    StageConfig,
    Thresholds,
    TrainingConfig,
    UNetConfig,
)
from nucleus_course.presets import variants


def gentle(augment):
    """A gentle version of an :class:`AugmentConfig` for the end of training.

    Blur, noise, inversion, elastic deformation and the degradations of
    :mod:`nucleus_course.data.disturb` are off; colours vary by a third as much, sizes by half (in
    logarithm). At a low rate the weights then adapt to realistic images, with certain outlines. (YOLOX,
    Ge et al. 2021, ends its training in a similar way.)
    """
    gone = ("blur_probability", "noise", "invert", "elastic", "shading", "haze", "sharpen", "jpeg")
    third = ("contrast", "brightness", "hue", "saturation", "stain")
    parts = {"gamma": 1 / 3, "scale": 1 / 2}
    return dataclasses.replace(
        augment,
        **dict.fromkeys(gone, 0.0),
        **{name: getattr(augment, name) / 3 for name in third},
        **{name: tuple(v**p for v in getattr(augment, name)) for name, p in parts.items()},
    )


PAPER_STAGES = (
    StageConfig("heads", layers="heads", epochs=20, rate=1e-3),
    StageConfig("stage 4 and up", layers="4+", epochs=40, rate=1e-3),
    StageConfig("all, at a tenth", layers="all", epochs=40, rate=1e-4),
)


# More than the paper's: users' images differ from these experiments in size, exposure and stain.
COMPACT_AUGMENT = AugmentConfig(
    blur_probability=0.3, border="reflect", min_area=4, **variants.COLOUR_AUGMENT
)


def _paper(backbone):
    return Preset(
        model=ModelConfig(name=f"paper-{backbone}", backbone=backbone),
        training=TrainingConfig(stages=PAPER_STAGES),
        augment=AugmentConfig(),
        summary=f"Johnson (2018): {backbone}-FPN, three stages, SGD, 512x512 crops after x2",
    )


def _cosine(**lengths):
    """A whole training from random weights in one stage."""
    return StageConfig("all", layers="all", rate=1e-3, schedule="cosine", **lengths)


def _compact():
    model = ModelConfig(
        name="compact",
        backbone="thin",
        upsample=1.0,
        normalization="percentile",
        strides=(2, 4, 8, 16, 32),
        pyramid_channels=64,
        anchor_sizes=(8, 16, 32, 64, 128),
        anchor_ratios=(1.0,),
        rpn_channels=64,
        rpn_positive_iou=0.5,
        rpn_negative_iou=0.3,
        rpn_anchors_per_image=128,
        rpn_nms_train=0.8,
        rpn_nms=0.7,
        pre_nms=(256, 1000),
        post_nms=(256, 1000),
        rois_per_image=64,
        roi_positive_fraction=0.5,
        canonical_size=112.0,
        box_head_channels=256,
        mask_head_channels=64,
        head_norm=False,
        mask_slots_per_image=16,
        mask_roi_scale=1.2,
        mask_samples=2,
        mask_scoring=True,
        box_passes=2,
        box_loss_beta=0.1,
        max_nuclei=128,
        train_norm=True,
    )
    training = TrainingConfig(
        stages=(_cosine(epochs=120, warmup_epochs=4),),
        batch_size=6,
        crop=160,
        steps_per_epoch=100,
        optimizer="adamw",
        weight_decay=2e-2,
        ema=0.998,
        settle=0.25,
        balance_types=0.5,
        dtype="mixed_bfloat16",
        validate_every=15,
    )
    return Preset(
        model=model,
        training=training,
        augment=COMPACT_AUGMENT,
        thresholds=Thresholds(score=0.4, nms_iou=0.4, flips=4, diameters=(12, 20, 32)),
        summary="ours: a thin ResNet-FPN that trains from scratch and runs on two CPU cores",
    )


def _unet():
    training = TrainingConfig(
        stages=(_cosine(epochs=36, warmup_epochs=1),),
        batch_size=8,
        crop=160,
        steps_per_epoch=75,
        optimizer="adamw",
        weight_decay=2e-2,
        ema=0.99,
        balance_types=0.5,
        dtype="mixed_bfloat16",
        validate_every=12,
        loss_weights={"nucleus": 1.0, "interior": 1.0},
    )
    return Preset(
        model=UNetConfig(),
        training=training,
        augment=COMPACT_AUGMENT,
        thresholds=Thresholds(score=0.5, min_area=10),
        summary="baseline: a small U-Net with a watershed, about 15 minutes on two CPU cores",
    )


def _presets():
    papers, colour = (_paper("resnet50"), _paper("resnet101")), _compact()
    more = variants.more(papers, colour)
    return {p.name: p for p in (*papers, variants.canonical(colour), *more, _unet())}


PRESETS = _presets()


def get_preset(name):
    """The preset ``name``, with variants after plus signs (see :mod:`nucleus_course.presets.variants`).

    Raises:
        UserError: an unknown preset; the message lists the known ones.
    """
    base, *changes = str(name).split("+")
    if base not in PRESETS:
        raise UserError(f"unknown preset '{name}': choose one of {', '.join(PRESETS)}")
    return variants.vary(PRESETS[base], changes)
