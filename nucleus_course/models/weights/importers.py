"""Start from published weights: Matterport's on COCO, or keras.applications' on ImageNet.

Two layouts of file are read, both written by ``save_weights`` of Keras 2. Each is translated to our names
(``layer/variable``) by an explicit map; nothing is matched by order or guessed. Differences between the
networks are handled as follows:

============== ================================== =========================================
difference     Matterport's Mask R-CNN            keras.applications' ResNet-50 and -101
============== ================================== =========================================
layer names    ours are the same                  ``conv4_block2_1_conv`` is ``res4b_branch2a``
BatchNorm      epsilon 1e-3, our default          epsilon 1.001e-5: ``norm_epsilon`` is set so
stem's pooling "same", our default                a border of zeros: ``pool_padding`` is set so
stride         in a block's first 1x1, as here    in a block's first 1x1, as here
channels       RGB, as here                       BGR: the first convolution's are reversed
box head       7x7 and 1x1 convolutions: reshaped none
               into our fully connected layers
class count    81: the three layers that depend   none
               on it start at random
============== ================================== =========================================

Both were trained on images of 0 to 255 minus their channel means. For a preset with inputs of -1 to 1 the
first convolution is scaled to match.
"""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.models.mask_rcnn.backbone import BLOCKS, block_names
from nucleus_course.models.weights.folder import (
    LoadReport,
    assign,
    find_weights,
    load_into,
    named_variables,
)

MATTERPORT, KERAS, NATIVE = "Matterport", "keras.applications", "nucleus_course"
# What weights of each layout require of the network.
NEEDS = {
    MATTERPORT: {"norm_epsilon": 1e-3, "pool_padding": "same"},
    KERAS: {"norm_epsilon": 1.001e-5, "pool_padding": "symmetric"},
    NATIVE: {},
}
CLASS_LAYERS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
BRANCHES = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}
VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


@dataclass
class ImportReport(LoadReport):
    """A :class:`LoadReport` that also names the layers that were left random on purpose."""

    layout: str = ""
    excluded: list = field(default_factory=list)

    def __str__(self):
        told = f" variables loaded from {self.layout}'s layout"
        text = super().__str__().replace(" variables loaded", told, 1)
        if self.excluded:
            names = ", ".join(sorted(self.excluded))
            text += f", {len(self.excluded)} excluded for their number of classes ({names})"
        return text


def read_legacy(path):
    """The layers of a file that Keras 2's ``save_weights`` wrote: {layer: {variable: array}}.

    Layers of a nested model (Matterport's ``rpn_model``) get their own names.

    Raises:
        UserError: the file cannot be read, or is of another layout.
    """
    layers = {}
    with _legacy(path) as root:
        for group in _attribute(root, "layer_names"):
            weights = _attribute(root[group], "weight_names")
            # A group of several layers is a nested model. A single layer's group has its name; the
            # scope of its variables may have a number appended (bn_conv1_1/gamma:0).
            inner = len({name.rpartition("/")[0] for name in weights}) > 1
            for name in weights:
                *scopes, variable = name.split("/")
                variable = variable.split(":")[0]
                if variable in VARIABLES:
                    layer = layers.setdefault(scopes[-1] if inner else group, {})
                    layer[variable] = np.asarray(root[group][name][()], "float32")
    if not layers:
        raise UserError(f"weights {path} have no layers in the layout of Keras 2")
    return layers


@contextlib.contextmanager
def _legacy(path):
    """The open group that holds the layers of a file; errors name the file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            inner = "layer_names" not in file.attrs and "model_weights" in file
            yield file["model_weights"] if inner else file
    except (OSError, KeyError) as error:
        raise UserError(f"weights {path} cannot be read: {str(error).splitlines()[0]}") from None


def _attribute(group, name):
    """A list of names; h5py splits long ones into name0, name1, …"""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    return [n.decode() if isinstance(n, bytes) else str(n) for part in parts for n in part]


def layout_of(path):
    """Which layout a weights file or model folder has: MATTERPORT, KERAS or NATIVE.

    Raises:
        UserError: not an HDF5 file.
    """
    if Path(path).is_dir():
        return NATIVE
    with _legacy(path) as root:
        names = set(_attribute(root, "layer_names"))
    if not names:
        return NATIVE
    return KERAS if "conv1_conv" in names else MATTERPORT


def keras_map(backbone):
    """{layer of keras.applications' ResNet: our layer} for ``resnet50`` or ``resnet101``."""
    found = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
    for stage, count in enumerate(BLOCKS[backbone], start=2):
        for number, ours in enumerate(block_names(stage, count), start=1):
            for branch, name in BRANCHES.items():
                if branch == "0" and number > 1:
                    continue  # only a stage's first block has a convolution in its shortcut
                theirs = f"conv{stage}_block{number}_{branch}"
                found[f"{theirs}_conv"] = f"{ours}_{name}"
                found[f"{theirs}_bn"] = f"{ours.replace('res', 'bn')}_{name}"
    return found


def _flat(layers):
    return {f"{layer}/{name}": a for layer, found in layers.items() for name, a in found.items()}


def from_keras(layers, config):
    """Layers of keras.applications' ResNet as {our "layer/variable": array}."""
    names = keras_map(config.backbone)
    arrays = _flat({names.get(layer, layer): variables for layer, variables in layers.items()})
    if "conv1/kernel" in arrays:
        arrays["conv1/kernel"] = arrays["conv1/kernel"][:, :, ::-1]  # BGR to RGB
    return _scaled(arrays, config)


def from_matterport(layers, config):
    """Layers of Matterport's Mask R-CNN as {our "layer/variable": array}."""
    arrays = _flat(layers)
    for name in ("mrcnn_class_conv1/kernel", "mrcnn_class_conv2/kernel"):
        if name in arrays:  # (h, w, in, out), in the order in which pooled features are flattened
            arrays[name] = arrays[name].reshape(-1, arrays[name].shape[-1])
    return _scaled(arrays, config)


def _scaled(arrays, config):
    """Scale the first convolution for the preset's input range; both layouts are for 0 to 255."""
    if config.normalization == "percentile" and "conv1/kernel" in arrays:
        arrays["conv1/kernel"] = arrays["conv1/kernel"] * 127.5
    return arrays


def adapted(config, layout):
    """The :class:`~nucleus_course.config.ModelConfig` with the values that weights of a layout require.

    Raises:
        UserError: no such weights exist for the preset's trunk.
    """
    if layout != NATIVE and getattr(config, "backbone", None) not in BLOCKS:
        raise UserError(
            f"preset {config.name} has another trunk: {layout} weights fit resnet50 and resnet101"
        )
    return dataclasses.replace(config, **NEEDS[layout])


def import_weights(model, path, layout=None):
    """Load a file of Matterport's or keras.applications' layout into a model.

    Layers that depend on the number of classes stay random if it differs.

    Returns:
        :class:`ImportReport`.

    Raises:
        UserError: the model is not what the weights require (see :func:`adapted`), part of its trunk is
            missing in the file, or nothing fits.
    """
    layout = layout or layout_of(path)
    config = model.config
    if adapted(config, layout) != config:
        needs = ", ".join(f"{k}={v}" for k, v in NEEDS[layout].items())
        raise UserError(
            f"{layout} weights need a model with {needs}: build it with MaskRCNN.from_preset(name, weights=…)"
        )
    arrays = {KERAS: from_keras, MATTERPORT: from_matterport}[layout](read_legacy(path), config)
    excluded = []
    for layer in CLASS_LAYERS:
        kernel = arrays.get(f"{layer}/kernel")
        if kernel is not None and kernel.shape[-1] != _outputs(model, layer):
            excluded.append(layer)
            arrays = {name: a for name, a in arrays.items() if not name.startswith(f"{layer}/")}
    trunk = [f"{layer.name}/{v.name}" for layer in model.backbone.layers for v in layer.weights]
    absent = [name for name in trunk if name not in arrays]
    if absent and any(name in arrays for name in named_variables(model)):
        raise UserError(
            f"weights {path} do not fit the trunk {config.backbone}: they lack {absent[0]} and {len(absent) - 1} more"
        )
    report = assign(model, arrays, str(path), strict=False)
    return ImportReport(**vars(report), layout=layout, excluded=excluded)


def _outputs(model, layer):
    """Output channels of one of the model's CLASS_LAYERS."""
    ends = (model.box_head.logits, model.box_head.deltas, model.mask_head.logits)
    return next(end.kernel.shape[-1] for end in ends if end.name == layer)


def locate(weights, config):
    """(path, layout) of the weights given by ``--weights``; ``coco`` and ``imagenet`` are downloaded if needed.

    Raises:
        UserError: not found, no network, a wrong checksum, or not for this preset.
    """
    from nucleus_course.models.weights.pretrained import PRETRAINED, fetch

    if str(weights) in PRETRAINED:
        layout = MATTERPORT if str(weights) == "coco" else KERAS
        adapted(config, layout)
        return fetch(str(weights), config.backbone), layout
    path = find_weights(weights)
    return path, layout_of(path)


def load_any(model, path, layout):
    """Load what :func:`locate` found; returns a :class:`LoadReport`."""
    if layout == NATIVE:
        return load_into(model, path, grow=True)
    return import_weights(model, path, layout)
