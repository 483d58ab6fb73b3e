"""Presets: what each changes, and that nothing else changes."""

import dataclasses
import subprocess
import sys

import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.config import ModelConfig, TrainingConfig, from_dict, to_dict
from nucleus_course.presets import PRESETS, get_preset
from nucleus_course.presets.variants import VARIANTS


def differences(a, b):
    """Names of the fields in which two presets differ, except name and summary."""
    found = set()
    for part in ("model", "training", "augment", "thresholds"):
        one, other = getattr(a, part), getattr(b, part)
        found |= {
            f.name
            for f in dataclasses.fields(one)
            if getattr(one, f.name) != getattr(other, f.name)
        }
    return found - {"name"}


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_the_papers_schedule_is_exact(backbone):
    """Johnson 2018: heads, then stage 4 and up, then all at a tenth of the rate; 100 epochs, SGD 0.9, batch 6, clip 5.0, decay 1e-4."""
    preset = get_preset(f"paper-{backbone}")
    assert [(s.layers, s.epochs, s.rate, s.schedule, s.warmup_epochs) for s in preset.training.stages] == [
        ("heads", 20, 1e-3, "constant", 0), ("4+", 40, 1e-3, "constant", 0), ("all", 40, 1e-4, "constant", 0),
    ]  # fmt: skip
    t = preset.training
    assert (t.optimizer, t.momentum, t.batch_size) == ("sgd", 0.9, 6)
    assert (t.global_clipnorm, t.weight_decay, t.crop) == (5.0, 1e-4, 512)
    assert preset.model.upsample == 2.0 and preset.model.backbone == backbone
    assert not preset.model.train_norm


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_the_scratch_twin_differs_in_what_it_says(backbone):
    paper, twin = get_preset(f"paper-{backbone}"), get_preset(f"paper-{backbone}-scratch")
    assert differences(paper, twin) == {"train_norm", "stages"}
    assert twin.model.train_norm and all(s.layers == "all" for s in twin.training.stages)
    for one in (twin, paper):
        assert sum(stage.epochs for stage in one.training.stages) == 100
    first, last = twin.training.stages
    rates = [round(first.rate_at(e) / 1e-2, 3) for e in range(6)]
    assert rates == [0.167, 0.333, 0.5, 0.667, 0.833, 1.0]
    assert last.rate == pytest.approx(first.rate / 10)


def test_strong_is_a_resnet50_that_learns_everything():
    strong, paper = get_preset("strong"), get_preset("paper-resnet50")
    assert strong.model.backbone == "resnet50" and strong.model.train_norm
    assert strong.model.rois_per_image > paper.model.rois_per_image
    low, high = strong.augment.scale
    assert low < 1 < high and strong.training.ema > 0 and strong.thresholds.flips == 4
    assert strong.training.crop % strong.model.pad_multiple == 0


COLOUR = (
    "hue", "saturation", "stain", "invert", "blur", "scale", "contrast", "brightness", "gamma", "noise", "elastic",
    "shading", "haze", "sharpen", "jpeg",
)  # fmt: skip
COUNTS = ("rois_per_image", "rpn_anchors_per_image")
CHANGES = {
    "mirror": {"border"},
    "native": {"upsample", "crop"},
    "long": {"stages"},
    "short": {"stages"},
    "high-rate": {"stages"},
    "low-rate": {"stages"},
    "no-drop": {"stages"},
    "cosine": {"stages"},
    "further": {"stages", "balance_types", "settle", "loss_weights"},
    "onward": {"stages", "balance_types"},
    "outlines": {"loss_weights"},
    "colour": {"input", "settle", *COLOUR},
    "stained": {"type_factors"},
    "sources": {"balance_by"},
    "deeper": {"blocks", "stages"},
    "larger": {"crop", "batch_size", "pre_nms", "post_nms", "max_nuclei", *COUNTS},
    "resnet101": {"backbone"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_one_thing(variant):
    name = "compact" if variant in ("deeper", "colour") else "paper-resnet50"
    base, preset = get_preset(name), get_preset(f"{name}+{variant}")
    assert differences(base, preset) == CHANGES[variant]
    assert preset.name == f"{name}+{variant}"
    assert preset.summary.startswith(base.summary) and preset.summary.endswith(VARIANTS[variant][0])


def test_variants_add_up():
    preset = get_preset("paper-resnet50-scratch+native+short")
    assert preset.model.upsample == 1.0 and preset.training.crop == 256 and preset.model.train_norm
    assert [s.epochs for s in preset.training.stages] == [30, 20]
    assert preset.name == "paper-resnet50-scratch+native+short"


def test_larger_crops_keep_their_shares():
    """Nearly the same pixels per step, and about as many RoIs, anchors and nuclei per pixel."""
    base, larger = get_preset("compact"), get_preset("compact+larger")
    assert larger.training.crop == 224 and larger.training.crop % larger.model.pad_multiple == 0
    pixels = [p.training.batch_size * p.training.crop**2 for p in (base, larger)]
    assert 1 < pixels[1] / pixels[0] < 1.4
    for name in ("rois_per_image", "rpn_anchors_per_image", "mask_slots_per_image", "max_nuclei"):
        assert getattr(larger.model, name) / getattr(base.model, name) == pytest.approx(
            (224 / 160) ** 2, rel=0.15
        )


def test_the_canonical_input_leaves_nothing_of_colour_to_vary():
    preset = get_preset("compact")
    assert preset.model.input == "canonical" and preset.training.settle == 0
    assert not any(
        getattr(preset.augment, name) for name in ("hue", "saturation", "stain", "invert")
    )
    assert all(get_preset(name).model.input == "colour" for name in PRESETS if name != "compact")
    with pytest.raises(UserError, match="variant 'colour' does not fit preset unet"):
        get_preset("unet+colour")


def test_only_a_thin_trunk_is_grown():
    with pytest.raises(UserError, match="variant 'deeper' does not fit preset paper-resnet50"):
        get_preset("paper-resnet50+deeper")


@pytest.mark.parametrize("variant", ["deeper", "larger", "resnet101", "outlines", "colour"])
def test_a_unet_has_no_trunk_no_rois_and_no_mask_head(variant):
    with pytest.raises(UserError, match=f"variant '{variant}' does not fit preset unet"):
        get_preset(f"unet+{variant}")
    assert get_preset("unet+long").training.stages[0].epochs == 72


def test_what_sees_colour_is_not_made_to():
    with pytest.raises(UserError, match="variant 'colour' does not fit preset paper-resnet50"):
        get_preset("paper-resnet50+colour")


def test_a_variant_counts_once():
    """Twice would double the rate again and add nothing."""
    with pytest.raises(UserError, match=r"variant 'deeper' of preset compact.* is given twice"):
        get_preset("compact+deeper+deeper")
    with pytest.raises(UserError, match="given twice"):
        get_preset("strong+long+mirror+long")


@pytest.mark.parametrize("fault", [AttributeError, TypeError])
def test_a_fault_in_a_variant_is_not_taken_for_a_misfit(monkeypatch, fault):
    def broken(preset):
        raise fault("a fault of the recipe")

    monkeypatch.setitem(VARIANTS, "broken", ("what", broken))
    with pytest.raises(fault, match="a fault of the recipe"):
        get_preset("compact+broken")


def test_rates_and_lengths():
    def stages(variant):
        return [
            (s.epochs, round(s.rate, 7))
            for s in get_preset(f"paper-resnet50+{variant}").training.stages
        ]

    assert stages("long") == [(40, 1e-3), (80, 1e-3), (80, 1e-4)]
    assert stages("short") == [(10, 1e-3), (20, 1e-3), (20, 1e-4)]
    assert stages("high-rate") == [(20, 3e-3), (40, 3e-3), (40, 3e-4)]
    assert stages("no-drop") == [(20, 1e-3), (40, 1e-3), (40, 1e-3)]


def test_errors_name_what_there_is():
    unknown = "unknown preset 'paper': choose one of paper-resnet50, .*strong"
    with pytest.raises(UserError, match=unknown):
        get_preset("paper")
    unknown = "unknown variant 'mirrored' of preset strong: choose from mirror, native"
    with pytest.raises(UserError, match=unknown):
        get_preset("strong+mirrored")


def test_every_preset_survives_json_and_needs_no_backend():
    for preset in PRESETS.values():
        if isinstance(preset.model, ModelConfig):
            assert from_dict(ModelConfig, to_dict(preset.model)) == preset.model
        assert from_dict(TrainingConfig, to_dict(preset.training)) == preset.training
    code = "import sys, nucleus_course.presets.variants, nucleus_course.config; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_plain_crops_are_the_image_turned_or_flipped():
    """Every 64 x 64 crop of ``--augment plain`` is a window of the image in one of the eight orientations."""
    import numpy as np

    from nucleus_course.cli.recipe import AUGMENTS
    from nucleus_course.data.augment import Augmenter

    image = np.random.default_rng(0).integers(0, 255, (66, 66, 3)).astype("uint8")
    windows = {
        np.ascontiguousarray(np.rot90(w[:, ::s], turns)).tobytes()
        for y in range(3) for x in range(3) for s in (1, -1) for turns in range(4)
        for w in [image[y : y + 64, x : x + 64]]
    }  # fmt: skip
    augmenter = Augmenter(AUGMENTS["plain"](get_preset("compact").augment), 64)
    crops = [
        augmenter(image, np.ones((66, 66), "int32"), (1, 2, i))[0].tobytes() for i in range(100)
    ]
    assert set(crops) <= windows and len(set(crops)) > 20
