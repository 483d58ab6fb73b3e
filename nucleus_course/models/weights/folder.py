"""A model folder: config.json, thresholds.json, weights.h5, and for some models rescoring.json and novelty.json.

``weights.h5`` is flat: one dataset for each variable, ``<layer>/<variable>``, without optimiser or random
state, so it works on every backend, and a layer that does not fit is named, not skipped. Importing this
module loads no backend.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json, write_json
from nucleus_course.config import ModelConfig, Thresholds, UNetConfig, from_dict, to_dict
from nucleus_course.models.weights.shards import check_sums, read_h5, weight_files, write_weights

FORMAT = 1
KINDS = {"mask_rcnn": ModelConfig, "unet": UNetConfig}  # config.json's "kind"; without it mask_rcnn
PLACES = (
    Path(__file__).resolve().parents[3] / "data" / "weights",  # a checkout
    Path(__file__).resolve().parents[2] / "_weights",  # an installed wheel
)


@dataclass
class LoadReport:
    """The result of loading: names of variables that were loaded, missing in the file, unexpected there, or of another shape."""

    source: str
    loaded: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)
    grown: list = field(default_factory=list)  # new blocks, which start as the identity

    def __str__(self):
        text = f"{self.source}: {len(self.loaded)} variables loaded"
        for word in ("missing", "unexpected", "mismatched"):
            names = getattr(self, word)
            if names:
                text += f", {len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        if self.grown:
            text += f", {len(self.grown)} blocks new, which change nothing at first ({', '.join(self.grown)})"
        return text


def shipped_weights():
    """Names of the weights that ship: {name: folder}."""
    found = {}
    for place in PLACES:
        for folder in sorted(place.glob("*/config.json")):
            found.setdefault(folder.parent.name, folder.parent)
    return found


def find_weights(source):
    """The folder or file behind ``source``: a shipped name, a model folder, a run folder, or an .h5 file.

    Raises:
        UserError: nothing is there.
    """
    path = Path(source)
    if path.is_dir():
        for folder in (path, path / "weights"):
            if (folder / "config.json").exists() and (folder / "thresholds.json").exists():
                return folder
        raise UserError(
            f"no weights in folder {source}: a model folder holds config.json, thresholds.json and weights.h5"
        )
    if path.is_file():
        return path
    shipped = shipped_weights()
    if str(source) in shipped:
        return shipped[str(source)]
    names = ", ".join(shipped) or "none ship with this copy"
    raise UserError(
        f"no weights '{source}': give a file, a folder, or one of the shipped names ({names})"
    )


def named_variables(network):
    """{"layer/variable": variable} of everything that is learned, BatchNorm statistics included."""
    from nucleus_course.models.layers import weighted_layers

    found = {}
    for layer in weighted_layers(network):
        for variable in layer.weights:
            key = f"{layer.name}/{variable.name}"
            if key in found:
                raise ValueError(f"two variables have the name {key}")
            found[key] = variable
    return found


def save_network(network, folder, half=False, max_mb=None):
    """Write config.json and the weights into a folder, which is created if needed.

    ``half`` stores kernels as float16; ``max_mb`` is the largest size of one file in MB, see
    :mod:`nucleus_course.models.weights.shards`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        k: v.numpy() if hasattr(v, "numpy") else v for k, v in named_variables(network).items()
    }
    write_weights(folder, arrays, half, max_mb)
    config = {"format": FORMAT, "kind": kind_of(network.config), "model": to_dict(network.config)}
    write_json(folder / "config.json", config)


def save_thresholds(thresholds, folder):
    """Replace a model folder's thresholds.json."""
    write_json(Path(folder) / "thresholds.json", dataclasses.asdict(thresholds))


def read_config(folder):
    """(ModelConfig or UNetConfig, Thresholds) of a model folder.

    Raises:
        UserError: a file is missing, is not JSON, or is of another version.
    """
    values = {}
    for name in ("config.json", "thresholds.json"):
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}: it is not a model folder")
        values[name] = read_json(folder / name)
    config = values["config.json"]
    if not isinstance(config, dict) or config.get("format") != FORMAT or "model" not in config:
        raise UserError(f"{folder / 'config.json'} is not a model config of format {FORMAT}")
    kind = config.get("kind", "mask_rcnn")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{folder / 'config.json'} is for a model of kind '{kind}': this version supports {', '.join(KINDS)}"
        )
    found = []
    for name, cls, part in (
        ("config.json", KINDS[kind], config["model"]),
        ("thresholds.json", Thresholds, values["thresholds.json"]),
    ):
        try:
            found.append(from_dict(cls, part))
        except UserError as error:
            raise UserError(f"{folder / name}: {error}") from None
    return tuple(found)


def kind_of(config):
    """The kind of model that a config describes: a key of :data:`KINDS`."""
    return getattr(config, "kind", "mask_rcnn")


def load_into(network, source, strict=True, grow=False):
    """Load weights into a network of the same architecture.

    Args:
        source: shipped name, model folder or weights.h5 file.
        strict: whether a variable that is missing, unexpected or of another shape is an error.
        grow: allow a thin trunk with more blocks than the model folder's; they start as the identity
            (:func:`~nucleus_course.models.mask_rcnn.backbone.blocks_beyond`).

    Returns:
        :class:`LoadReport`.

    Raises:
        UserError: nothing fits, or, if strict, not everything does; the network is unchanged then.
    """
    from nucleus_course.models.mask_rcnn.backbone import blocks_beyond

    path, files, new = find_weights(source), None, {}
    if path.is_dir():
        files = weight_files(path)
        check_sums(files)
        new = blocks_beyond(read_config(path)[0], network.config) if grow else {}
    arrays = {}
    for file in files or [path]:
        arrays |= read_h5(file)
    return assign(network, arrays, str(source), strict, new)


def assign(network, arrays, source, strict=True, new=()):
    """Assign {"layer/variable": array} to a network's variables by name; returns a :class:`LoadReport`.

    ``new`` are blocks that may be missing, see :func:`load_into`.

    Raises:
        UserError: as :func:`load_into`.
    """
    variables = named_variables(network)
    report = LoadReport(source, unexpected=sorted(set(arrays) - set(variables)), grown=list(new))
    for name, variable in variables.items():
        if name.replace("bn", "res", 1).startswith(tuple(f"{block}_" for block in new)):
            continue
        if name not in arrays:
            report.missing.append(name)
        elif arrays[name].shape != tuple(variable.shape):
            report.mismatched.append(f"{name} {arrays[name].shape} for {tuple(variable.shape)}")
        else:
            report.loaded.append(name)
    if not report.loaded:
        raise UserError(
            f"weights {source} belong to another architecture than {network.config.name}: nothing fits"
        )
    if strict and (report.missing or report.mismatched or report.unexpected):
        raise UserError(
            f"weights {source} belong to another architecture than {network.config.name}: {report}"
        )
    for name in report.loaded:
        variables[name].assign(np.asarray(arrays[name], "float32"))
    for scale in dict(new).values():
        variables[scale].assign(np.zeros(variables[scale].shape, "float32"))
    return report
