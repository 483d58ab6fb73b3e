"""The network as a whole: its size, gradients, number formats, and images with no and many nuclei."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import FakeDataset, Record, disc_dataset, ground_truth, tiny_config, tiny_preset

from nucleus_course.data.batches import TrainingBatches
from nucleus_course.data.preprocess import to_network
from nucleus_course.models.mask_rcnn import network as mask_rcnn
from nucleus_course.models.mask_rcnn.network import LOSSES, MaskRCNNNetwork
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.presets import get_preset
from nucleus_course.training import count_trainable, set_trainable

# ------------------------------------------------------------------ parameters


def convolution(side, inputs, outputs):
    return side * side * inputs * outputs + outputs


def norm(channels):
    return 4 * channels


def matterport_count(blocks, classes):
    """(all, BatchNorm statistics) of Matterport's Mask_RCNN with a ResNet-FPN, layer by layer from its paper sizes."""
    total, channels, normed = convolution(7, 3, 64) + norm(64), 64, 64
    for count, filters in zip(blocks, (64, 128, 256, 512)):
        for block in range(count):
            total += convolution(1, channels, filters) + convolution(3, filters, filters)
            total += convolution(1, filters, 4 * filters) + 2 * norm(filters) + norm(4 * filters)
            normed += 6 * filters
            if block == 0:
                total += convolution(1, channels, 4 * filters) + norm(4 * filters)
                normed += 4 * filters
            channels = 4 * filters
    # FPN
    total += sum(convolution(1, c, 256) for c in (256, 512, 1024, 2048)) + 4 * convolution(
        3, 256, 256
    )
    # RPN
    total += convolution(3, 256, 512) + convolution(1, 512, 2 * 3) + convolution(1, 512, 4 * 3)
    total += convolution(7, 256, 1024) + convolution(1, 1024, 1024) + 2 * norm(1024)  # box head
    total += convolution(1, 1024, classes) + convolution(1, 1024, 4 * classes)
    total += (
        4 * (convolution(3, 256, 256) + norm(256))
        + convolution(2, 256, 256)
        + convolution(1, 256, classes)
    )
    return total, 2 * (normed + 2 * 1024 + 4 * 256)


RESNETS = {
    "paper-resnet50": ((3, 4, 6, 3), 44_662_942),
    "paper-resnet101": ((3, 4, 23, 3), 63_733_406),
}


def test_the_formula_is_right_about_matterports_coco_model():
    """Keras' summary of Matterport's ResNet-101 for COCO's 81 classes: 64,158,584, of which 111,488 do not train."""
    assert matterport_count((3, 4, 23, 3), 81) == (64_158_584, 111_488)
    # 79 classes less: logits, boxes and mask channels.
    assert 64_158_584 - 79 * (1025 + 4 * 1025 + 257) == 63_733_406


@pytest.mark.parametrize("preset", RESNETS)
def test_the_paper_presets_have_matterports_parameters(preset):
    blocks, expected = RESNETS[preset]
    total, statistics = matterport_count(blocks, 2)
    model = MaskRCNNNetwork(get_preset(preset).model)
    set_trainable(model, "all")
    assert total == expected == model.count_params()
    assert count_trainable(model) == (total - statistics, total)


def test_compact_has_four_million():
    model = MaskRCNNNetwork(get_preset("compact").model)
    assert 3.5e6 < model.count_params() < 4.5e6


# ------------------------------------------------------------------ one step


def batch_of(model_config, dataset=None, **training):
    preset = tiny_preset(model_config, **training)
    return TrainingBatches(dataset or disc_dataset(2), preset)[0][0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "head_norm": True,
            "train_norm": False,
            "anchor_ratios": (0.5, 1.0, 2.0),
            "mask_slots_per_image": 0,
        },
        {"head_norm": True},
    ],
    ids=["compact", "paper's heads, frozen norm", "paper's heads, norm trains"],
)
def test_gradients_reach_every_weight_that_trains(changes):
    """One step of gradient descent moves every variable. All anchors are taken, so that each level has some."""
    config = tiny_config(rpn_anchors_per_image=4096, rois_per_image=80, **changes)
    model = MaskRCNNNetwork(config, seed=1)
    moving = set_trainable(model, "all")
    model.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True, jit_compile=False)
    before = {name: v.numpy() for name, v in named_variables(model).items()}
    rng = np.random.default_rng(0)
    batch = batch_of(config)
    # Proposals over the whole crop too, so that RoIAlign reads every level of the pyramid.
    batch["image"] = batch["image"] + rng.normal(0, 0.1, batch["image"].shape).astype("float32")
    losses = model.train_on_batch(batch, return_dict=True)
    assert np.isfinite(losses["loss"]) and all(losses[f"{name}_loss"] > 0 for name in LOSSES)
    still = [
        name
        for name, v in named_variables(model).items()
        if np.array_equal(before[name], v.numpy())
    ]
    if changes.get("train_norm", True):
        # BatchNorm subtracts the mean, and with it the effect of a bias before it.
        still = [
            n for n in still if not (config.head_norm and n.endswith("bias") and ("_conv" in n))
        ]
        assert still == [], still
    else:
        assert sorted(still) == sorted(n for n in before if "moving_" in n), (
            "frozen statistics, and nothing else, stay"
        )
    assert len(moving) == len({n.split("/")[0] for n in before})


def losses_of(model, batch):
    out = model(batch, training=True)
    return {k: float(v) for k, v in model.loss_values(out).items()}, out


def test_an_image_without_nuclei_still_teaches():
    config = tiny_config()
    empty = FakeDataset(
        [
            Record(
                "a",
                np.full((80, 80, 3), 40, "uint8"),
                np.zeros((80, 80), "int32"),
                "small fluorescent",
            )
        ]
        * 2
    )
    losses, out = losses_of(MaskRCNNNetwork(config), batch_of(config, empty))
    assert losses["box"] == losses["mask"] == losses["rpn_box"] == 0
    assert (
        losses["class"] > 0
        and losses["rpn_class"] > 0
        and all(np.isfinite(v) for v in losses.values())
    )
    assert ops.convert_to_numpy(out["roi_weight"]).sum() > 0


@pytest.mark.parametrize("count", [1, 375])
def test_one_nucleus_and_375(count):
    config = tiny_config(max_nuclei=384)
    labels = np.zeros((64, 64), "int32")
    places = [(y, x) for y in range(0, 60, 4) for x in range(0, 62, 2)][:count]
    for n, (y, x) in enumerate(places, 1):
        labels[y : y + 3, x : x + 2] = n
    truth = ground_truth([labels], 384)
    assert (truth[2] > 0).sum() == count
    image = to_network(np.repeat((labels[..., None] > 0) * np.uint8(200), 3, axis=2), config)[None]
    losses, out = losses_of(
        MaskRCNNNetwork(config),
        {"image": image, "labels": truth[0], "boxes": truth[1], "ids": truth[2]},
    )
    assert all(np.isfinite(v) for v in losses.values()) and losses["rpn_box"] > 0
    assert ops.convert_to_numpy(out["roi_label"]).sum() >= 1


# ------------------------------------------------------------------ number formats


def test_mixed_bfloat16_rounds_no_box(monkeypatch):
    """bfloat16 rounds 301 to 300 or 302. Boxes, logits and losses must stay float32."""
    config = tiny_config(max_nuclei=4)
    seen = {}
    original = mask_rcnn.roi_targets
    monkeypatch.setattr(
        mask_rcnn, "roi_targets", lambda *a: seen.update(boxes=a[2], proposals=a[0]) or original(*a)
    )
    model = MaskRCNNNetwork(config, dtype_policy="mixed_bfloat16")
    labels = np.zeros((1, 320, 320), "int32")
    labels[0, 280:302, 100:131] = 1
    boxes = np.zeros((1, 4, 4), "float32")
    boxes[0, 0] = [280.7, 100.1, 301.3, 130.9]
    image = np.random.default_rng(0).normal(0, 0.5, (1, 320, 320, 3)).astype("float32")
    batch = {
        "image": image,
        "labels": labels,
        "boxes": boxes,
        "ids": np.array([[1, 0, 0, 0]], "int32"),
    }
    losses, out = losses_of(model, {k: ops.convert_to_tensor(v) for k, v in batch.items()})
    np.testing.assert_array_equal(ops.convert_to_numpy(seen["boxes"]), boxes)
    assert (
        keras.backend.standardize_dtype(model.backbone(image[:, :64, :64])[0].dtype) == "bfloat16"
    ), "and it is on"
    for name, value in out.items():
        if not name.endswith(("index", "label")):
            assert keras.backend.standardize_dtype(value.dtype) == "float32", name
    proposals = ops.convert_to_numpy(seen["proposals"])
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(proposals, "bfloat16"), "float32"))
    assert (proposals != rounded).mean() > 0.5
    found = model({"image": batch["image"]}, training=False)
    for name in ("boxes", "scores", "masks"):
        assert keras.backend.standardize_dtype(found[name].dtype) == "float32", name
    assert all(np.isfinite(v) for v in losses.values())


def test_the_losses_are_what_compute_loss_adds_up():
    model = MaskRCNNNetwork(tiny_config())
    model.loss_weights_ = dict(zip(LOSSES, (1.0, 2.0, 3.0, 4.0, 5.0)))
    out = model(batch_of(model.config), training=True)
    values = {k: float(v) for k, v in model.loss_values(out).items()}
    total = float(model.compute_loss(y_pred=out))
    assert total == pytest.approx(
        sum(w * values[n] for n, w in zip(LOSSES, (1, 2, 3, 4, 5))), rel=1e-5
    )
    assert {t.name for t in model.loss_trackers} == {
        f"{n}_loss" for n in LOSSES
    } and "loss" not in LOSSES


def test_the_papers_strides_and_sizes():
    config = get_preset("paper-resnet50").model
    assert (config.mask_size, config.positive_rois, config.pad_multiple) == (28, 42, 64)
    assert config.upsample == 2 and config.anchor_sizes == (8, 16, 32, 64, 128)
