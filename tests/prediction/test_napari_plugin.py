"""The napari plugin without napari: the manifest by npe2 where installed, and the function on stand-ins for layers."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from skimage.draw import polygon2mask

import nucleus_course
from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.prediction import napari_plugin
from nucleus_course.prediction.label_detections import LabelDetections

MANIFEST = Path(nucleus_course.__file__).parent / "napari.yaml"
LABELS = np.zeros((30, 40), np.int32)
LABELS[2:12, 3:15], LABELS[20:28, 22:30], LABELS[15, 5] = 1, 2, 3


@pytest.fixture
def calls(monkeypatch):
    """A model that finds LABELS, and a list of the arguments it was called with."""
    seen = []

    def predict(image, **options):
        seen.append((image, options))
        return LabelDetections.from_labels(LABELS, [0.9, 0.8, 0.3], Thresholds(score=0.5))

    monkeypatch.setattr(napari_plugin, "_model", lambda weights: SimpleNamespace(predict=predict))
    return seen


def layer(data, **more):
    about = {
        "name": "cells",
        "scale": np.array([1.0] * (getattr(data, "ndim", 2) - 2) + [0.5, 0.5]),
        "rgb": False,
    }
    return SimpleNamespace(data=data, **about | more)


def test_labels_and_outlines_as_napari_takes_them(calls):
    image = np.zeros((30, 40), np.uint16)
    (labels, about, kind), (rings, style, other) = napari_plugin.find_nuclei(layer(image))
    assert (kind, other) == ("labels", "shapes") and about["name"] == "cells: nuclei"
    assert np.array_equal(labels, np.where(LABELS == 3, 0, LABELS)) and labels.dtype == np.int32
    assert about["scale"] == style["scale"] == (0.5, 0.5)
    assert about["features"]["score"][1:].tolist() == pytest.approx([0.9, 0.8])
    assert style["features"]["label"].tolist() == [1, 2] and style["shape_type"] == "polygon"
    # pixels' centres are whole numbers, in napari and here
    for number, ring in enumerate(rings, 1):
        assert np.array_equal(polygon2mask(labels.shape, ring), labels == number)
    assert calls[0][0].dtype == np.uint16 and calls[0][1] == {"tile": None, "progress": False}
    assert len(napari_plugin.find_nuclei(layer(image), threshold=0.2, outlines=False)) == 1
    assert napari_plugin.find_nuclei(layer(image), threshold=0.2, tile=256)[0][0].max() == 3
    assert calls[-1][1]["tile"] == 256


def test_channels_colour_and_pyramids(calls):
    stack = np.arange(2 * 30 * 40).reshape(2, 30, 40)
    napari_plugin.find_nuclei(layer(stack), channel=1)
    assert np.array_equal(calls[-1][0], stack[1])
    colour = np.zeros((30, 40, 3), np.uint8)
    ((_, about, _), _) = napari_plugin.find_nuclei(
        layer(colour, rgb=True, scale=np.array([0.5, 0.25]))
    )
    assert calls[-1][0].shape == (30, 40, 3) and about["scale"] == (0.5, 0.25)
    napari_plugin.find_nuclei(
        layer([stack[0], stack[0, ::2, ::2]], multiscale=True, scale=np.ones(2))
    )
    assert np.array_equal(calls[-1][0], stack[0])
    with pytest.raises(UserError, match="layer cells: channel 2: choose 0 to 1"):
        napari_plugin.find_nuclei(layer(stack), channel=2)
    with pytest.raises(UserError, match=r"layer cells: shape \(1, 2, 30, 40\)"):
        napari_plugin.find_nuclei(layer(stack[None]))


def test_the_manifest_names_what_is_there():
    manifest = yaml.safe_load(MANIFEST.read_text())
    (command,), (widget,) = (manifest["contributions"][key] for key in ("commands", "widgets"))
    module, name = command["python_name"].split(":")
    assert getattr(import_module(module), name) is napari_plugin.find_nuclei
    assert widget["command"] == command["id"] and command["id"].startswith(manifest["name"])
    text = (MANIFEST.parents[1] / "pyproject.toml").read_text()
    assert (
        f'[project.entry-points."napari.manifest"]\n{manifest["name"]} = "nucleus_course:napari.yaml"'
        in text
    )


def test_npe2_accepts_the_manifest():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    (widget,) = manifest.contributions.widgets
    assert widget.autogenerate and manifest.contributions.commands[0].title == "Find nuclei"
