"""The U-Net: targets in closed form, maps to nuclei, training through train(), saving and loading."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from tiny import disc_dataset, discs, python, tiny_preset

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig, Thresholds, UNetConfig
from nucleus_course.evaluation.matching import iou_from_overlap, overlap_matrix
from nucleus_course.models.unet import UNetNetwork, map_losses, pixel_targets
from nucleus_course.prediction import segmenter, unet_objects
from nucleus_course.prediction.segmenter import UNet, build
from nucleus_course.prediction.unet_objects import objects_from_maps, pixel_maps
from nucleus_course.presets import get_preset

TINY = UNetConfig(name="tiny-unet", widths=(4, 8, 8))


def targets(labels, **changes):
    """:func:`pixel_targets` of one label map as NumPy: nucleus, interior, weight, each (H, W)."""
    target, weight = pixel_targets(np.asarray(labels, "int32")[None], UNetConfig(**changes))
    target, weight = (ops.convert_to_numpy(v)[0] for v in (target, weight))
    return target[..., 0], target[..., 1], weight[..., 0]


def test_targets_of_a_hand_drawn_map():
    labels = np.array([
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 2, 2, 2, 0],
        [1, 1, 1, 0, 2, 2, 2, 0],
        [0, 0, 0, 0, 2, 2, 2, 0],
    ])  # fmt: skip
    nucleus, interior, weight = targets(labels, boundary=1, reach=1, touch_weight=4.0)
    assert (nucleus == (labels > 0)).all()
    # The image's edge is no boundary: 1 keeps its corner, 2 its lowest row.
    assert np.argwhere(interior).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 5], [3, 5]]
    # Only the column between the two has both within one pixel; in row 0 and row 3 by the corner.
    assert np.argwhere(weight == 5).tolist() == [[0, 3], [1, 3], [2, 3], [3, 3]]
    assert (weight[weight != 5] == 1).all()


def test_targets_match_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    labels, _ = discs(30, 34, 9, rng, radius=(2, 7))
    labels[:, 20][labels[:, 20] == 0] = 77  # something that touches
    labels[3:5, 3:5] = -1
    for boundary, reach in ((1, 2), (2, 1)):
        nucleus, interior, weight = targets(
            labels, boundary=boundary, reach=reach, touch_weight=3.0
        )

        def around(r, c, d):
            return labels[max(0, r - d) : r + d + 1, max(0, c - d) : c + d + 1]

        for r, c in np.ndindex(labels.shape):
            own = labels[r, c]
            near = set(around(r, c, reach).ravel().tolist()) - {0, -1}
            assert nucleus[r, c] == (own > 0)
            assert interior[r, c] == (own > 0 and (around(r, c, boundary) == own).all())
            assert weight[r, c] == (0 if own < 0 else 4 if len(near) >= 2 else 1)


def test_an_empty_map_has_no_targets_and_a_full_one_no_boundary():
    nucleus, interior, weight = targets(np.zeros((5, 6)))
    assert not nucleus.any() and not interior.any() and (weight == 1).all()
    nucleus, interior, weight = targets(np.ones((5, 6)))
    assert nucleus.all() and interior.all() and (weight == 1).all()


def test_losses_in_closed_form():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2, 4, 5, 2)).astype("float32")
    target = (rng.uniform(size=logits.shape) > 0.6).astype("float32")
    weight = rng.choice([0.0, 1.0, 5.0], (2, 4, 5, 1)).astype("float32")
    found = ops.convert_to_numpy(map_losses(logits, target, weight))
    probability = 1 / (1 + np.exp(-logits.astype("float64")))
    for k in range(2):
        p, t, w = probability[..., k], target[..., k], weight[..., 0]
        entropy = -(w * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum() / w.sum()
        there = w > 0
        dice = (2 * (p * t * there).sum() + 1) / ((p * there).sum() + (t * there).sum() + 1)
        assert found[k] == pytest.approx(entropy + 1 - dice, rel=1e-5)
    sure = np.where(target > 0, 50.0, -50.0).astype("float32")
    assert ops.convert_to_numpy(map_losses(sure, target, weight)) == pytest.approx(0.0, abs=1e-5)
    assert np.isfinite(
        ops.convert_to_numpy(map_losses(1e4 * sure, 1 - target, np.zeros_like(weight)))
    ).all()


def test_perfect_maps_give_back_the_nuclei():
    rng = np.random.default_rng(2)
    labels, _ = discs(120, 140, 25, rng, radius=(4, 11))
    rows, columns = np.mgrid[:120, :140] + 0.5
    for y, x in ((60, 60), (60, 76)):  # two that touch
        inside = (rows - y) ** 2 + (columns - x) ** 2 < 81
        labels[inside & (np.abs(columns - x) < np.abs(columns - 136 + x))] = 100 + x
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype("int32")
    nucleus, interior, _ = targets(labels)
    found, scores = objects_from_maps(nucleus, interior)
    iou = iou_from_overlap(overlap_matrix(found, labels)).max(axis=0)
    present = np.bincount(labels.ravel())[1:] > 12
    assert iou[present].min() > 0.9 and iou[present].mean() > 0.985
    assert (scores == 1).all()


def test_a_waist_of_the_interior_separates_even_without_a_boundary():
    rows, columns = np.mgrid[:40, :70] + 0.5
    body = np.minimum(np.hypot(rows - 20, columns - 22), np.hypot(rows - 20, columns - 46)) < 13.5
    assert objects_from_maps(body * 1.0, body * 0.9)[0].max() == 2
    assert objects_from_maps(body * 1.0, body * 0.9, depth=20.0)[0].max() == 1


def test_small_pieces_without_interior_are_nuclei_of_their_own():
    nucleus, interior = np.zeros((12, 12)), np.zeros((12, 12))
    nucleus[1:3, 1:3] = 0.9
    nucleus[6:11, 6:11], interior[7:10, 7:10] = 0.8, 0.7
    labels, scores = objects_from_maps(nucleus, interior)
    assert labels.max() == 2 and (labels[6:11, 6:11] == 1).all() and (labels[1:3, 1:3] == 2).all()
    assert scores == pytest.approx([0.8 * 0.7, 0.0])
    labels, scores = objects_from_maps(np.zeros((4, 4)), np.zeros((4, 4)))
    assert not labels.any() and len(scores) == 0


def test_the_preset_is_small_and_named():
    preset = get_preset("unet")
    assert 1e6 < UNetNetwork(preset.model).count_params() < 2.5e6
    assert preset.augment == get_preset("compact+colour").augment
    assert preset.training.crop % preset.model.pad_multiple == 0


def test_training_reduces_the_loss_and_finds_the_discs(tmp_path):
    from nucleus_course.training import train

    dataset = disc_dataset(images=4, side=64, count=5)
    stages = (StageConfig("all", epochs=4, rate=5e-3),)
    preset = tiny_preset(
        model=TINY,
        stages=stages,
        batch_size=4,
        steps_per_epoch=12,
        loss_weights={"nucleus": 1.0, "interior": 1.0},
        ema=0.9,
    )
    keras.utils.set_random_seed(9)
    model = build(TINY)
    history = train(
        model,
        dataset,
        preset=preset,
        run=tmp_path / "run",
        progress=False,
        validation=dataset,
        validate_every=4,
    )
    losses = [row["loss"] for row in history.rows]
    assert losses[-1] < 0.75 * losses[0]
    assert {"nucleus_loss", "interior_loss"} <= set(history.rows[0])
    assert history.rows[-1]["coco_ap"] > 20
    config = json.loads((tmp_path / "run" / "weights" / "config.json").read_text())
    assert config["kind"] == "unet" and config["model"]["widths"] == [4, 8, 8]


def test_training_starts_from_another_run(tmp_path):
    from nucleus_course.models.weights import importers

    folder = build(TINY).save(tmp_path / "model")
    path, layout = importers.locate(folder, TINY)
    report = importers.load_any(UNetNetwork(TINY), path, layout)
    assert report.loaded and not (report.missing or report.grown)


def test_save_and_load_give_the_same_model(tmp_path):
    model = build(TINY, Thresholds(score=0.3, mask=0.4, min_area=5))
    model.save(tmp_path / "model")
    image = disc_dataset(images=1)[0].image
    expected = pixel_maps(model, image)
    for load in (UNet.load, segmenter.load):
        again = load(tmp_path / "model")
        assert isinstance(again, UNet)
        assert again.config == TINY and again.thresholds == model.thresholds
        assert pixel_maps(again, image) == pytest.approx(expected, abs=1e-6)
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({"format": 1, "kind": "other", "model": {}})
    )
    with pytest.raises(UserError, match="kind 'other'"):
        UNet.load(tmp_path / "model")


def test_prediction_at_odd_sizes_in_tiles_and_flips(monkeypatch):
    model = build(TINY)
    image = disc_dataset(images=1, side=75)[0].image  # 75 x 83
    whole = pixel_maps(model, image)
    assert whole.shape == (75, 83, 2) and whole.dtype == np.float32
    assert pixel_maps(model, image, views=4).shape == (75, 83, 2)
    monkeypatch.setattr(unet_objects, "TILE", 32)
    monkeypatch.setattr(unet_objects, "MARGIN", 24)  # more than the network's receptive field
    inside = np.s_[:56, :60]  # seams at 32; at the far edges the mirrored margin has another width
    assert pixel_maps(model, image)[inside] == pytest.approx(whole[inside], abs=1e-5)
    monkeypatch.undo()
    found = model.predict(image, score_threshold=0.0, mask_threshold=0.1, nms_iou=0.5)
    assert found.labels.shape == (75, 83) and (np.diff(found.scores) <= 0).all()
    assert len(found) == len(found.boxes) == len(found.rles())
    assert len(model.predict(image, max_detections=1, mask_threshold=0.1)) <= 1


def test_the_shared_prediction_makes_predictions():
    from nucleus_course.prediction.datasets import predict_dataset

    dataset = disc_dataset(images=2)
    predictions = predict_dataset(build(TINY, Thresholds(min_area=3)), dataset, progress=False)
    assert set(predictions.images) == set(dataset.ids)


BACKENDS = """
import keras, numpy as np
from tiny import disc_dataset, tiny_preset
from nucleus_course.config import UNetConfig
from nucleus_course.models.unet import pixel_targets
from nucleus_course.prediction.segmenter import build
from nucleus_course.training import train
keras.utils.set_random_seed(1)
config = UNetConfig(widths=(4, 8))
labels = np.zeros((1, 9, 9), "int32"); labels[0, 1:5, 1:5] = 1; labels[0, 5:9, 3:9] = 2
target, weight = pixel_targets(labels, config)
total = keras.ops.convert_to_numpy(keras.ops.sum(target * weight))
dataset = disc_dataset(images=2, side=40, count=3)
preset = tiny_preset(model=config, crop=32, steps_per_epoch=8, loss_weights={"nucleus": 1.0, "interior": 1.0})
rows = train(build(config), dataset, preset=preset, epochs=2, progress=False).rows
assert rows[-1]["loss"] < rows[0]["loss"]
print("sum", float(total), keras.backend.backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_have_the_same_targets_and_train(backend):
    pytest.importorskip(backend)
    done = python(BACKENDS, backend=backend)
    assert done.returncode == 0, done.stderr[-2000:]
    labels = np.zeros((9, 9), "int32")
    labels[1:5, 1:5], labels[5:9, 3:9] = 1, 2
    nucleus, interior, weight = targets(labels)
    assert done.stdout.split()[-2:] == [str(float(((nucleus + interior) * weight).sum())), backend]
