"""Imported weights: files in the published layouts, written here, against independent forward passes."""

import dataclasses

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from nucleus_course import presets
from nucleus_course._util.errors import UserError
from nucleus_course.models.mask_rcnn import backbone
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.models.weights import importers, pretrained
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.prediction.segmenter import MaskRCNN
from nucleus_course.presets import get_preset

SMALL = dict(pyramid_channels=8, rpn_channels=8, box_head_channels=16, mask_head_channels=8)


def small_model(trunk="resnet50", **changes):
    """The paper's network with its real trunk and small heads."""
    config = get_preset(f"paper-{trunk}").model
    return MaskRCNNNetwork(dataclasses.replace(config, **{**SMALL, **changes}))


@pytest.fixture
def shallow(monkeypatch):
    """A "ResNet-50" with one block per stage, for tests where depth does not matter: built in a tenth of the time."""
    monkeypatch.setitem(backbone.BLOCKS, "resnet50", (1, 1, 1, 1))


def values_for(name, shape, rng):
    """Random weights under which activations neither vanish nor explode, BatchNorm's statistics included."""
    if name == "kernel":
        return rng.normal(0, np.sqrt(1.5 / max(1, np.prod(shape[:-1]))), shape).astype("float32")
    low, high = {"gamma": (0.5, 1.2), "moving_variance": (0.005, 1.5)}.get(name, (-0.2, 0.2))
    return rng.uniform(low, high, shape).astype("float32")


def write_legacy(path, groups, root=None, scope=lambda name: name):
    """A file as Keras 2's save_weights wrote it: {group: [(layer, variable, array), …]}."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = [g.encode() for g in groups]
        top.attrs["backend"], top.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for group, weights in groups.items():
            place = top.create_group(group)
            names = [f"{scope(layer)}/{variable}:0" for layer, variable, _ in weights]
            place.attrs["weight_names"] = [n.encode() for n in names]
            for name, (_, _, array) in zip(names, weights):
                place[name] = array
    return path


# ------------------------------------------------------------------ keras.applications


def applications_file(path, reference, seed=0):
    """Random weights for keras.applications' network, in the layout of its published files."""
    rng = np.random.default_rng(seed)
    groups = {layer.name: [] for layer in reference.layers}
    for layer in reference.layers:
        for v in layer.weights:
            array = values_for(v.name, tuple(v.shape), rng)
            groups[layer.name].append((layer.name, v.name, array))
    return write_legacy(path, groups)


def compare_features(trunk, ends, folder):
    """Both networks read one file; their features must be the same at the end of every stage."""
    maker = getattr(keras.applications, trunk.replace("resnet", "ResNet"))
    reference = maker(weights=None, include_top=False, input_shape=(96, 64, 3))
    path = applications_file(folder / f"{trunk}_notop.h5", reference)
    reference.load_weights(path)  # Keras itself reads the file, so its layout is right
    model = small_model(trunk, **importers.NEEDS[importers.KERAS])
    report = importers.import_weights(model, path)

    # RGB less its means.
    image = np.random.default_rng(1).uniform(-120, 150, (2, 96, 64, 3)).astype("float32")
    outputs = [reference.get_layer(end).output for end in ("conv2_block1_out", *ends)]
    first, *theirs = keras.Model(reference.input, outputs)(image[..., ::-1])
    ours = model.backbone(image, training=False)
    for a, b in zip(ours, theirs):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        assert a.shape == b.shape and np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5 * np.abs(b).max())
    return path, report, image, ops.convert_to_numpy(first)


ENDS50 = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
    return compare_features("resnet50", ENDS50, tmp_path_factory.mktemp("keras"))


def test_resnet50_gives_the_features_of_keras_applications(resnet50):
    _, report, _, _ = resnet50
    assert len(report.loaded) == 53 * 2 + 53 * 4  # convolutions and BatchNorms
    assert not report.unexpected and not report.mismatched and not report.excluded
    assert {name.split("/")[0].split("_")[0] for name in report.missing} == {"fpn", "rpn", "mrcnn"}
    assert "318 variables loaded from keras.applications" in str(report)
    assert "missing" in str(report)


@pytest.mark.slow
def test_resnet101_gives_the_features_of_keras_applications(tmp_path):
    ends = ("conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out")
    _, report, _, _ = compare_features("resnet101", ends, tmp_path)
    assert len(report.loaded) == 104 * 6 and not report.unexpected


def test_each_difference_that_is_accounted_for_matters(resnet50, shallow, monkeypatch):
    """With another epsilon, padding or channel order, the first block's features would differ."""
    path, _, image, expected = resnet50
    right = importers.NEEDS[importers.KERAS]

    def distance(model):
        features = ops.convert_to_numpy(model.backbone(image, training=False)[0])
        return np.abs(features - expected).max() / np.abs(expected).max()

    def imported(needs):
        monkeypatch.setitem(importers.NEEDS, importers.KERAS, needs)
        model = small_model(**needs)
        importers.import_weights(model, path)
        return model

    model = imported(right)
    assert distance(model) < 1e-4
    kernel = model.backbone.get_layer("conv1").kernel
    kernel.assign(ops.flip(kernel, 2))
    assert distance(model) > 1e-2
    assert distance(imported({**right, "norm_epsilon": 1e-3})) > 1e-2
    assert distance(imported({**right, "pool_padding": "same"})) > 1e-2


def test_presets_that_feed_minus_one_to_one(resnet50, shallow):
    """The picture in [-1, 1] gives the features of the picture less 127.5, in 0 to 255."""
    path, _, image, expected = resnet50
    model = small_model(normalization="percentile", **importers.NEEDS[importers.KERAS])
    importers.import_weights(model, path)
    features = ops.convert_to_numpy(model.backbone(image / 127.5, training=False)[0])
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


def test_from_preset_adapts_the_network_and_says_what_loaded(resnet50, shallow, monkeypatch):
    path, _, image, expected = resnet50
    preset = get_preset("paper-resnet50")
    config = dataclasses.replace(preset.model, name="small", **SMALL)
    small = dataclasses.replace(preset, model=config)
    monkeypatch.setitem(presets.PRESETS, "small", small)
    files = {("imagenet", "resnet50"): path}
    monkeypatch.setattr(pretrained, "fetch", lambda *names: files[names])
    model = MaskRCNN.from_preset("small", weights="imagenet")
    assert model.config.norm_epsilon == 1.001e-5 and model.config.pool_padding == "symmetric"
    assert len(model.load_report.loaded) == (1 + 4 * 4) * 6
    features = ops.convert_to_numpy(model.network.backbone(image, training=False)[0])
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


def test_weights_of_less_depth_are_refused(resnet50, shallow, monkeypatch):
    path, _, _, _ = resnet50
    # ResNet-50 has three blocks in stage 2.
    monkeypatch.setitem(backbone.BLOCKS, "resnet50", (4, 1, 1, 1))
    model = small_model(**importers.NEEDS[importers.KERAS])
    before = np.array(model.backbone.get_layer("conv1").kernel)
    lacking = "do not fit the trunk resnet50: they lack res2d_branch2a/kernel and 17 more"
    with pytest.raises(UserError, match=lacking):
        importers.import_weights(model, path)
    np.testing.assert_array_equal(model.backbone.get_layer("conv1").kernel, before)


def test_a_network_that_was_built_otherwise_is_refused(resnet50, shallow):
    needs = "need a model with norm_epsilon=1.001e-05, pool_padding=symmetric: build it with"
    with pytest.raises(UserError, match=needs):
        importers.import_weights(small_model(), resnet50[0])


# ------------------------------------------------------------------ Matterport


def matterport_groups(model, classes, seed=0):
    """Matterport's groups for a model's shapes: convolutions for the box head, the RPN nested, more blocks than ours."""
    rng, c = np.random.default_rng(seed), model.config
    shapes = {
        "mrcnn_class_conv1/kernel": (
            c.box_pool,
            c.box_pool,
            c.pyramid_channels,
            c.box_head_channels,
        ),
        "mrcnn_class_conv2/kernel": (1, 1, c.box_head_channels, c.box_head_channels),
        "mrcnn_class_logits/kernel": (c.box_head_channels, classes),
        "mrcnn_class_logits/bias": (classes,),
        "mrcnn_bbox_fc/kernel": (c.box_head_channels, 4 * classes),
        "mrcnn_bbox_fc/bias": (4 * classes,),
        "mrcnn_mask/kernel": (1, 1, c.mask_head_channels, classes),
        "mrcnn_mask/bias": (classes,),
    }
    groups = {"input_image": [], "zero_padding2d_1": [], "activation_1": []}
    for name, variable in named_variables(model).items():
        layer, kind = name.split("/")
        group = "rpn_model" if layer.startswith("rpn_") else layer
        array = values_for(kind, shapes.get(name, tuple(variable.shape)), rng)
        groups.setdefault(group, []).append((layer, kind, array))
    for letter in "bcw":  # a ResNet-101 has more blocks in stage 4, up to res4w
        name = f"res4{letter}_branch2a"
        groups[name] = [(name, "kernel", np.zeros((1, 1, 4, 1), "float32"))]
    return groups


def arrays_of(groups):
    """{"layer/variable": array} of a file's groups."""
    return {f"{layer}/{kind}": a for weights in groups.values() for layer, kind, a in weights}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A model, and what importing 81 classes from a COCO-like file made of it; one block a stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbone.BLOCKS, "resnet50", (1, 1, 1, 1))
        model = small_model()
    groups = matterport_groups(model, classes=81)
    path = write_legacy(tmp_path_factory.mktemp("matterport") / "mask_rcnn_coco.h5", groups)
    before = {name: np.array(v) for name, v in named_variables(model).items()}
    return model, groups, path, before, importers.import_weights(model, path)


def test_matterport_loads_every_layer_but_those_of_other_classes(coco):
    model, groups, _, before, report = coco
    assert report.layout == importers.MATTERPORT
    assert sorted(report.excluded) == ["mrcnn_bbox_fc", "mrcnn_class_logits", "mrcnn_mask"]
    assert sorted(report.unexpected) == [f"res4{letter}_branch2a/kernel" for letter in "bcw"]
    assert not report.mismatched and len(report.missing) == 6
    names = "mrcnn_bbox_fc, mrcnn_class_logits, mrcnn_mask"
    assert f"3 excluded for their number of classes ({names})" in str(report)
    stored = arrays_of(groups)
    for name, variable in named_variables(model).items():
        if name.split("/")[0] in report.excluded:
            np.testing.assert_array_equal(variable, before[name], err_msg=name)
        else:
            np.testing.assert_array_equal(np.ravel(variable), stored[name].ravel(), err_msg=name)


def test_the_box_head_computes_what_matterports_convolutions_do(coco):
    """7x7 'valid' and 1x1 convolutions, BatchNorm written out, against our fully connected layers."""
    model, groups, _, _, _ = coco
    w, names = arrays_of(groups), ("gamma", "beta", "moving_mean", "moving_variance")
    shape = (3, 7, 7, SMALL["pyramid_channels"])
    x = pooled = np.random.default_rng(5).normal(size=shape).astype("float32")
    for i in (1, 2):
        x = ops.conv(x, w[f"mrcnn_class_conv{i}/kernel"], padding="valid")
        x = x + w[f"mrcnn_class_conv{i}/bias"]
        gamma, beta, mean, variance = (w[f"mrcnn_class_bn{i}/{name}"] for name in names)
        x = ops.relu((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta)
    shared = ops.convert_to_numpy(x)[:, 0, 0]
    kernel, bias = (np.array(v) for v in (model.box_head.logits.kernel, model.box_head.logits.bias))
    logits, _ = model.box_head(pooled)
    np.testing.assert_allclose(logits, shared @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_a_file_of_two_classes_loads_whole(shallow, tmp_path):
    """Weights that Matterport's nucleus sample wrote: as a whole model's file, scopes numbered by a second session."""
    model = small_model()
    groups = matterport_groups(model, classes=2, seed=3)
    options = {"root": "model_weights", "scope": lambda n: n if n.startswith("rpn") else f"{n}_1"}
    path = write_legacy(tmp_path / "nucleus.h5", groups, **options)
    report = importers.import_weights(model, path)
    assert not report.excluded and not report.missing
    stored = arrays_of(groups)["mrcnn_mask/kernel"]
    np.testing.assert_array_equal(model.mask_head.logits.kernel, stored)


def test_what_does_not_fit_is_an_error_and_changes_nothing(coco, tmp_path):
    model, groups, _, _, _ = coco
    before = np.array(model.backbone.get_layer("conv1").kernel)
    some = {k: v for k, v in groups.items() if not k.startswith("res3")}
    lacking = "do not fit the trunk resnet50: they lack res3a_branch2a/kernel and 7 more"
    with pytest.raises(UserError, match=lacking):
        importers.import_weights(model, write_legacy(tmp_path / "part.h5", some))
    other = {"dense_1": [("dense_1", "kernel", np.zeros((3, 4), "float32"))]}
    with pytest.raises(UserError, match="nothing fits"):
        importers.import_weights(model, write_legacy(tmp_path / "other.h5", other))
    with pytest.raises(UserError, match="have no layers"):
        importers.import_weights(model, write_legacy(tmp_path / "empty.h5", {"activation_1": []}))
    (tmp_path / "page.h5").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="page.h5 cannot be read"):
        importers.import_weights(model, tmp_path / "page.h5")
    np.testing.assert_array_equal(model.backbone.get_layer("conv1").kernel, before)


def test_a_thin_trunk_takes_no_published_weights():
    with pytest.raises(UserError, match="preset compact has another trunk"):
        importers.locate("coco", get_preset("compact").model)


def test_attributes_that_h5py_split(tmp_path):
    with h5py.File(tmp_path / "split.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
        for name in "ab":
            file.create_group(name).attrs["weight_names0"] = [f"{name}/kernel:0".encode()]
            file[name][f"{name}/kernel:0"] = np.full(2, ord(name), "float32")
    found = importers.read_legacy(tmp_path / "split.h5")
    assert {k: v["kernel"].tolist() for k, v in found.items()} == {"a": [97, 97], "b": [98, 98]}
