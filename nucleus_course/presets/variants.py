"""More presets, each defined by its changes to another one, and variants of any preset.

A variant is appended to a preset's name with a plus: ``paper-resnet50+mirror`` is the paper's experiment with
mirrored image edges, and ``paper-resnet50-scratch+native+short`` has no upsampling and half the epochs.
"""

import dataclasses

from nucleus_course._util.errors import UserError
from nucleus_course.config import IMAGE_TYPES, ModelConfig

# The augmentation of compact's first edition, beyond the paper's.
COLOUR_AUGMENT = dict(
    hue=20.0, saturation=0.3, stain=0.15, invert=0.1, blur=(0.0, 1.5), scale=(0.6, 1.6), contrast=0.3,
    brightness=0.1, gamma=(0.7, 1.4), noise=6.0, elastic=1.0, shading=0.0, haze=0.0, sharpen=0.0, jpeg=0.0,
)  # fmt: skip


def _changed(preset, name, summary="", *, model=None, training=None, **parts):
    """A preset under another name with some fields of its model and training replaced."""
    return dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, name=name, **(model or {})),
        training=dataclasses.replace(preset.training, **(training or {})),
        summary=summary or preset.summary,
        **parts,
    )


def from_scratch(preset):
    """A paper preset for random weights, where nothing is frozen.

    BatchNorm learns; all layers are trained from the first step; the rate is ten times the paper's after a
    warm-up of five epochs (the paper has none), and drops to a tenth for the last 40 of 100 epochs as in the
    paper. The rest is the paper's.
    """
    last = preset.training.stages[-1]
    stages = (
        dataclasses.replace(last, name="all", epochs=60, rate=1e-2, warmup_epochs=5),
        dataclasses.replace(last, name="all, at a tenth", epochs=40, rate=1e-3),
    )
    summary = f"the paper's {preset.model.backbone} from random weights: BatchNorm learns, all layers move, warm-up"
    changes = {"model": {"train_norm": True}, "training": {"stages": stages}}
    return _changed(preset, f"{preset.name}-scratch", summary, **changes)


def strong(paper, compact):
    """A ResNet-50 with the methods of good entries to the 2018 Data Science Bowl and of ``compact``.

    Scale jitter, colour and elastic augmentation, rare image types more often, more anchors and RoIs,
    anchors up to 128 image pixels, averaged weights, test-time flips; choose thresholds on the validation
    split after training. Trains from random or from ImageNet weights.
    """
    own = compact.model
    model = dict(
        normalization="percentile",
        anchor_sizes=(16, 32, 64, 128, 256),
        rpn_positive_iou=0.5,
        rpn_anchors_per_image=256,
        rpn_nms_train=0.8,
        rois_per_image=256,
        roi_positive_fraction=0.5,
        mask_slots_per_image=64,
        mask_roi_scale=own.mask_roi_scale,
        mask_samples=own.mask_samples,
        mask_scoring=True,
        box_passes=own.box_passes,
        box_loss_beta=own.box_loss_beta,
        train_norm=True,
    )
    stage = dataclasses.replace(
        compact.training.stages[-1], name="all", epochs=100, rate=5e-4, warmup_epochs=4
    )
    training = dict(
        stages=(stage,),
        batch_size=8,
        optimizer="adamw",
        weight_decay=compact.training.weight_decay,
        ema=0.999,
        balance_types=compact.training.balance_types,
        settle=compact.training.settle,
        dtype="mixed_bfloat16",
        workers=8,
    )
    return _changed(
        paper,
        "strong",
        "resnet50-FPN with what good contest entries shared: scale jitter, more RoIs, EMA, flips, tuned thresholds",
        model=model,
        training=training,
        augment=dataclasses.replace(compact.augment, scale=(0.5, 2.0)),
        thresholds=dataclasses.replace(paper.thresholds, flips=4),
    )


def canonical(compact):
    """``compact`` as it ships: with every image in canonical grey, and augmentation like other laboratories' images.

    There is no colour to vary, and polarity is decided before the network. It has averaged weights but no gentle end of
    the training, which would fit the training images too closely.
    """
    augment = dataclasses.replace(
        compact.augment, hue=0.0, saturation=0.0, stain=0.0, invert=0.0, blur=(0.0, 2.0), scale=(0.45, 2.2), contrast=0.4,
        brightness=0.12, gamma=(0.6, 1.7), noise=8.0, elastic=1.5, shading=0.4, haze=0.35, sharpen=1.5, jpeg=0.15,
    )  # fmt: skip
    changes = {"model": {"input": "canonical"}, "training": {"settle": 0.0}}
    return _changed(compact, compact.name, augment=augment, **changes)


def _colour(preset):
    """The first edition of ``compact``: colour input, its own augmentation, a gentle end."""
    if preset.model.input != "canonical":
        return None  # it has the colour input already
    augment = dataclasses.replace(preset.augment, **COLOUR_AUGMENT)
    return {"model": {"input": "colour"}, "training": {"settle": 0.25}, "augment": augment}


def _onward(preset):
    """A round from trained weights at a lower rate, with rare types more often."""
    stages = _stages(preset, lambda s: {"rate": 0.4 * s.rate, "warmup_epochs": 1})
    return {"training": {"balance_types": 0.75} | stages}


def _outlines(preset):
    """The mask loss counts twice."""
    old = preset.training.loss_weights
    if "mask" not in old:
        return None  # a U-Net has no mask head
    return {"training": {"loss_weights": old | {"mask": 2.0 * old["mask"]}}}


def more(papers, compact):
    """The presets of this module, from the paper's two and ``compact``."""
    return [from_scratch(paper) for paper in papers] + [strong(papers[0], compact)]


# ------------------------------------------------------------------ variants


def _stages(preset, change):
    """Every stage, with the changes that ``change(stage)`` returns as a dict."""
    return {"stages": tuple(dataclasses.replace(s, **change(s)) for s in preset.training.stages)}


def _native(preset):
    """Crops of the same part of the image, at its own resolution."""
    crop = int(preset.training.crop / preset.model.upsample)
    return {"model": {"upsample": 1.0}, "training": {"crop": crop}}


def _further(preset):
    """A second round from trained weights (``--weights``): gentler, with more weight on outlines and rare types."""
    weights = dict(preset.training.loss_weights)
    if "mask" in weights:  # a U-Net has no mask head
        weights["mask"] *= 2.0
    changed = {"settle": 0.5, "balance_types": 0.75, "loss_weights": weights}
    return {"training": changed | _stages(preset, lambda s: {"rate": 0.4 * s.rate})}


def _stained(preset):
    """Stained tissue twice as often as with ``balance_types`` alone."""
    stained = [name for name in IMAGE_TYPES if name.endswith("stain")]
    return {"training": {"type_factors": dict.fromkeys(stained, 2.0)}}


def _deeper(preset):
    """One more block in stages 3 and 5, two in stage 4; twice the rate, because the new blocks are untrained."""
    if getattr(preset.model, "backbone", None) != "thin":
        return None  # only the thin trunk has a variable number of blocks
    training = _stages(preset, lambda s: {"rate": 2.0 * s.rate})
    return {"model": {"blocks": (2, 3, 4, 3)}, "training": training}


def _larger(preset):
    """Crops of nearly twice the area, four instead of six per step, with matching counts per image."""
    old, training = preset.model, preset.training
    if not isinstance(old, ModelConfig):
        return None  # a U-Net has no RoIs
    names = ("rois_per_image", "mask_slots_per_image", "rpn_anchors_per_image")
    counts = {name: 2 * getattr(old, name) for name in names}
    for name in ("pre_nms", "post_nms"):
        in_training, in_prediction = getattr(old, name)
        counts[name] = (2 * in_training, in_prediction)
    counts["max_nuclei"] = 7 * old.max_nuclei // 4
    side = 32 * round(1.4 * training.crop / 32)
    batch = max(1, 2 * training.batch_size // 3)
    return {"model": counts, "training": {"crop": side, "batch_size": batch}}


# Variant -> (description, changes; None if it does not fit). All but the last nine are the paper's side
# experiments; it does not say which lengths and rates it tried.
VARIANTS = {
    "mirror": ("image edges mirrored instead of black", lambda p: {"augment": dataclasses.replace(p.augment, border="reflect")}),
    "native": ("images not upsampled", _native),
    "long": ("twice the epochs", lambda p: {"training": _stages(p, lambda s: {"epochs": 2 * s.epochs})}),
    "short": ("half the epochs", lambda p: {"training": _stages(p, lambda s: {"epochs": -(-s.epochs // 2)})}),
    "high-rate": ("three times the rate", lambda p: {"training": _stages(p, lambda s: {"rate": 3.0 * s.rate})}),
    "low-rate": ("a third of the rate", lambda p: {"training": _stages(p, lambda s: {"rate": s.rate / 3.0})}),
    "no-drop": ("the first stage's rate to the end", lambda p: {"training": _stages(p, lambda s: {"rate": p.training.stages[0].rate})}),
    "cosine": ("the rate falls as a cosine in each stage", lambda p: {"training": _stages(p, lambda s: {"schedule": "cosine"})}),
    "further": ("a second round from trained weights: a lower rate, rare types more often, twice the mask loss", _further),
    "onward": ("a round from trained weights: a lower rate, rare types more often", _onward),
    "outlines": ("the mask loss counts twice", _outlines),
    "colour": ("images in their own colours, as compact's first edition saw them", _colour),
    "stained": ("stained tissue twice as often", _stained),
    "sources": ("rare experiments more often, in place of rare types", lambda p: {"training": {"balance_by": "sources"}}),
    "deeper": ("more blocks in the thin trunk, at twice the rate", _deeper),
    "larger": ("fewer and larger crops", _larger),
    "resnet101": ("the deeper trunk", lambda p: {"model": {"backbone": "resnet101"}}),
}  # fmt: skip


def vary(preset, variants):
    """A preset with variants applied in turn; its name says which.

    Raises:
        UserError: no such variant, one given twice, or one that does not fit the preset.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise UserError(
                f"unknown variant '{variant}' of preset {preset.name}: choose from {', '.join(VARIANTS)}"
            )
        if variants.count(variant) > 1:
            raise UserError(f"variant '{variant}' of preset {preset.name} is given twice")
        about, change = VARIANTS[variant]
        changes = change(preset)
        known = {f.name for f in dataclasses.fields(preset.model)}
        if changes is None or not known.issuperset(changes.get("model", ())):
            raise UserError(f"variant '{variant}' does not fit preset {preset.name}")
        name, summary = f"{preset.name}+{variant}", f"{preset.summary}; {about}"
        preset = _changed(preset, name, summary, **changes)
    return preset
