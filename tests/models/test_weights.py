"""Saving and loading: a model folder, its errors, half precision, names that ship."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
from tiny import disc_dataset, lively_model, tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.models.weights import folder as weights
from nucleus_course.models.weights.folder import (
    find_weights,
    load_into,
    named_variables,
    save_network,
    save_thresholds,
    shipped_weights,
)
from nucleus_course.prediction.segmenter import MaskRCNN, build

CHOSEN = {"metric": "dsb_score", "split": "validation", "value": 61.5}
THRESHOLDS = Thresholds(score=0.42, nms_iou=0.25, mask=0.45, min_area=12, **CHOSEN)


def values(network):
    return {name: v.numpy() for name, v in named_variables(network).items()}


@pytest.fixture(scope="module")
def trained():
    """A model whose variables all differ, BatchNorm statistics included."""
    model = lively_model(THRESHOLDS)
    rng = np.random.default_rng(0)
    for name, variable in named_variables(model.network).items():
        if not name.endswith("kernel"):
            shift = rng.uniform(0, 0.05, tuple(variable.shape)).astype("float32")
            variable.assign(variable.numpy() + shift)
    return model


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    return trained.save(tmp_path_factory.mktemp("weights") / "mine")


def test_round_trip_gives_the_same_detections(trained, folder):
    loaded = MaskRCNN.load(folder)
    assert loaded.config == trained.config and loaded.thresholds == THRESHOLDS
    image = disc_dataset(1)[0].image
    a, b = trained.predict(image), loaded.predict(image)
    assert len(a)
    for name in ("boxes", "scores", "mask_probs"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_everything_is_in_the_file_under_its_name_and_nothing_else(trained, folder):
    with h5py.File(folder / "weights.h5") as file:
        found = {
            f"{layer}/{name}": item[()] for layer in file for name, item in file[layer].items()
        }
    expected = values(trained.network)
    assert found.keys() == expected.keys()
    some = {"conv1/kernel", "bn2a_branch2a/moving_mean", "fpn_p2/bias", "mrcnn_mask/kernel"}
    assert some <= found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    names = ["SHA256SUMS", "config.json", "thresholds.json", "weights.h5"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert json.loads((folder / "config.json").read_text())["format"] == 1


def test_half_precision_is_close_and_half_the_size(trained, tmp_path):
    full, half = tmp_path / "full", tmp_path / "half"
    save_network(trained.network, full)
    trained.save(half, half=True)
    a, b = values(trained.network), values(MaskRCNN.load(half).network)
    for name in a:
        np.testing.assert_allclose(b[name], a[name], rtol=1e-3, atol=1e-6)
        if a[name].ndim == 1:
            np.testing.assert_array_equal(b[name], a[name])
    with h5py.File(full / "weights.h5") as x, h5py.File(half / "weights.h5") as y:
        assert y["fpn_p2/kernel"].nbytes * 2 == x["fpn_p2/kernel"].nbytes


def test_report_of_what_loaded(folder):
    report = load_into(MaskRCNNNetwork(tiny_config()), folder)
    assert len(report.loaded) > 50
    assert not (report.missing or report.unexpected or report.mismatched)
    assert str(report) == f"{folder}: {len(report.loaded)} variables loaded"


def test_another_architecture_is_refused_in_one_line_and_changes_nothing(folder):
    network = MaskRCNNNetwork(tiny_config(pyramid_channels=12))
    before = values(network)
    with pytest.raises(UserError) as error:
        load_into(network, folder)
    message = str(error.value)
    assert "belong to another architecture than tiny" in message and "mismatched" in message
    assert "\n" not in message
    assert str(folder) in message and len(message) < 500
    model = MaskRCNN(network, Thresholds(score=0.9))
    with pytest.raises(UserError, match="another architecture"):
        model.load_weights(folder)
    assert model.thresholds == Thresholds(score=0.9) and model.load_report is None
    for name, value in values(network).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_deeper_network_is_not_cut_to_a_shallower_one(tmp_path):
    """The shallower network's variables are all there; the rest would be dropped without a message."""
    deeper = tmp_path / "deeper"
    build(tiny_config(blocks=(1, 1, 2, 1))).save(deeper)
    with pytest.raises(UserError, match="another architecture than tiny.* unexpected .*4b"):
        load_into(MaskRCNNNetwork(tiny_config()), deeper)


def test_a_network_grown_by_blocks_sees_what_it_saw(trained, folder):
    deeper = build(tiny_config(blocks=(2, 1, 3, 1)), seed=7)
    deeper.load_weights(folder, grow=True)
    report = deeper.load_report
    assert deeper.thresholds == THRESHOLDS
    assert report.grown == ["res2b", "res4b", "res4c"]
    assert not (report.missing or report.unexpected or report.mismatched)
    assert str(report).endswith("3 blocks new, which change nothing at first (res2b, res4b, res4c)")
    image = disc_dataset(1)[0].image
    a, b = trained.predict(image), deeper.predict(image)
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
    np.testing.assert_allclose(a.mask_probs, b.mask_probs, atol=1e-5)
    with pytest.raises(UserError, match="another architecture"):
        load_into(MaskRCNNNetwork(tiny_config(blocks=(2, 1, 3, 1))), folder)
    other = MaskRCNNNetwork(tiny_config(blocks=(2, 1, 3, 1), pyramid_channels=12))
    with pytest.raises(UserError, match="mismatched"):
        load_into(other, folder, grow=True)


def test_not_strict_loads_what_fits_and_says_so(trained, folder):
    network = MaskRCNNNetwork(tiny_config(box_head_channels=24))
    report = load_into(network, folder, strict=False)
    assert {n.split()[0] for n in report.mismatched} == {
        f"mrcnn_{n}" for n in ("class_conv1/kernel", "class_conv1/bias", "class_conv2/kernel", "class_conv2/bias",
                               "class_logits/kernel", "bbox_fc/kernel")
    }  # fmt: skip
    assert "6 mismatched (" in str(report)
    assert "mrcnn_class_logits/kernel (16, 2) for (24, 2)" in str(report)
    kernels = (values(one)["conv1/kernel"] for one in (network, trained.network))
    np.testing.assert_array_equal(*kernels)


def test_missing_variables_are_named(folder, tmp_path):
    (tmp_path / "weights.h5").write_bytes((folder / "weights.h5").read_bytes())
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        del file["fpn_p2/kernel"]
        file["strange/kernel"] = np.zeros(3)
    message = r"1 missing \(fpn_p2/kernel\), 1 unexpected \(strange/kernel\)"
    with pytest.raises(UserError, match=message):
        load_into(MaskRCNNNetwork(tiny_config()), tmp_path / "weights.h5")


def test_a_file_in_which_nothing_fits(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dense/kernel"] = np.zeros(3)
    with pytest.raises(UserError, match="another architecture than tiny: nothing fits"):
        load_into(MaskRCNNNetwork(tiny_config()), tmp_path / "other.h5")


@pytest.mark.parametrize("content", [b"", b"no HDF5", None], ids=["empty", "text", "cut short"])
def test_a_broken_file_is_named(folder, tmp_path, content):
    path = tmp_path / "broken.h5"
    path.write_bytes((folder / "weights.h5").read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match="weights .*broken.h5 cannot be read") as error:
        load_into(MaskRCNNNetwork(tiny_config()), path)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_named(tmp_path, folder):
    advice = "give a file, a folder, or one of the shipped names"
    with pytest.raises(UserError, match=f"no weights 'nothing': {advice}"):
        MaskRCNN.load("nothing")
    with pytest.raises(UserError, match="no weights in folder .*: a model folder holds config"):
        MaskRCNN.load(tmp_path)
    with pytest.raises(UserError, match="is a file: give its model folder"):
        MaskRCNN.load(folder / "weights.h5")
    for name in ("config.json", "thresholds.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="weights"):
        MaskRCNN.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: "{", "config.json: not JSON"),
        (lambda c: json.dumps({**c, "format": 99}), "is not a model config of format 1"),
        (
            lambda c: json.dumps({**c, "model": {**c["model"], "wings": 2}}),
            "has no wings: written by",
        ),
        (lambda c: json.dumps({**c, "kind": "transformer"}), "model of kind 'transformer'"),
    ],
    ids=["not JSON", "format", "unknown key", "kind"],
)
def test_a_config_that_is_not_ours(folder, tmp_path, change, message):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(change(json.loads((folder / "config.json").read_text())))
    with pytest.raises(UserError, match=message):
        MaskRCNN.load(tmp_path)


def test_a_run_folder_stands_for_its_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run" / "weights")
    assert find_weights(tmp_path / "run") == copy


def test_shipped_names(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PLACES", (tmp_path, tmp_path / "none"))
    assert shipped_weights() == {}
    shutil.copytree(folder, tmp_path / "mine")
    assert shipped_weights() == {"mine": tmp_path / "mine"}
    assert find_weights("mine") == tmp_path / "mine"
    with pytest.raises(UserError, match=r"shipped names \(mine\)"):
        find_weights("yours")


def test_thresholds_are_replaced_alone(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_thresholds(dataclasses.replace(THRESHOLDS, score=0.7), tmp_path)
    assert MaskRCNN.load(tmp_path).thresholds.score == 0.7
    assert (tmp_path / "weights.h5").read_bytes() == (folder / "weights.h5").read_bytes()


def test_what_ships_loads():
    """Every model in data/weights is complete."""
    for name, place in shipped_weights().items():
        config, thresholds = weights.read_config(place)
        assert config.name and 0 < thresholds.score < 1, name
