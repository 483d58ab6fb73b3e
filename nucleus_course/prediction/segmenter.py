"""The object that detects: a network with its operating point, its rescorer and the engine that runs it.

    model = nucleus_course.load("compact")
    detections = model.predict(image)

:class:`MaskRCNN` and :class:`UNet` are the two kinds. The Keras model is ``model.network``.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.data import novelty
from nucleus_course.data.read import read_image
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.models.unet import UNetNetwork
from nucleus_course.models.weights import importers
from nucleus_course.models.weights.folder import (
    find_weights,
    kind_of,
    load_into,
    read_config,
    save_network,
    save_thresholds,
)
from nucleus_course.prediction.engines.keras_fast import KerasEngine
from nucleus_course.prediction.rescorer import Rescorer
from nucleus_course.prediction.slides import predict_slide
from nucleus_course.prediction.tiles import predict_image
from nucleus_course.prediction.trace import trace_image
from nucleus_course.prediction.unet_objects import UNetEngine, predict_pixels
from nucleus_course.presets import get_preset

ENGINES = ("keras", "openvino")


class Segmenter:
    """A network and what it needs to find nuclei.

    Attributes:
        network: the Keras model; ``nucleus_course.train`` trains it.
        thresholds: :class:`~nucleus_course.config.Thresholds`, the operating point.
        rescorer: :class:`~nucleus_course.prediction.rescorer.Rescorer` fitted to these weights, or None.
        novelty: :class:`~nucleus_course.data.novelty.Novelty`, what these weights learned from, or None.
        start: name of the weights it started from; None for random ones.
        load_report: which weights were loaded and which were not.
    """

    kind, network_class, engine_class = "", None, None

    def __init__(self, network, thresholds=None, rescorer=None):
        self.network = network
        self.thresholds = thresholds or Thresholds()
        self.rescorer = rescorer
        self.novelty = None
        self.start = self.load_report = None
        self._engine = None

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.config.name!r}, {self.network.count_params():,} weights)"
        )

    @property
    def config(self):
        """The network's :class:`~nucleus_course.config.ModelConfig` or UNetConfig."""
        return self.network.config

    @property
    def engine(self):
        """Runs the network in prediction; made on first use."""
        if self._engine is None:
            self._engine = self.engine_class(self.network)
        return self._engine

    @classmethod
    def from_preset(cls, name, weights=None, **options):
        """A model by preset name, with random weights or with ``weights``.

        Args:
            name: a preset, such as ``compact`` or ``paper-resnet50``.
            weights: a shipped name, folder or file; ``coco`` and ``imagenet`` fetch published weights;
                a file of Matterport's or keras.applications' layout is imported.
            options: ``dtype_policy`` ("float32" or "mixed_bfloat16") and ``seed`` of the network.

        Raises:
            UserError: unknown preset, or of another kind of model; weights not found or not fitting.
        """
        preset = get_preset(name)
        cls._check(preset.model, f"preset '{name}'")
        if weights is None:
            return cls(cls.network_class(preset.model, **options), preset.thresholds)
        path, layout = importers.locate(weights, preset.model)
        network = cls.network_class(importers.adapted(preset.model, layout), **options)
        model = cls(network, preset.thresholds)
        model.start_from(path, layout, weights)
        return model

    def start_from(self, path, layout, name):
        """Take over the weights that :func:`nucleus_course.models.weights.importers.locate` found.

        Args:
            path, layout: what ``locate`` gave; a model folder brings its thresholds along.
            name: how the weights were asked for.
        """
        point = self.operating_point(path)
        self.load_report = importers.load_any(self.network, path, layout)
        self.thresholds, self.rescorer, self.novelty = point
        self.start = str(name)

    @classmethod
    def load(cls, source, **options):
        """A model from a folder that :meth:`save` wrote, or by the name of shipped weights.

        Raises:
            UserError: not found, not whole, or of another kind of model.
        """
        folder = find_weights(source)
        if folder.is_file():
            raise UserError(f"{source} is a file: give its model folder, or a preset with --preset")
        config, thresholds = read_config(folder)
        cls._check(config, str(source))
        model = cls(cls.network_class(config, **options), thresholds)
        model.load_weights(folder)
        return model

    @classmethod
    def _check(cls, config, what):
        if kind_of(config) != cls.kind:
            raise UserError(
                f"{what} is a {kind_of(config)}, not a {cls.kind}: use nucleus_course.load or create"
            )

    def load_weights(self, source, grow=False):
        """Load weights of the same architecture, with their thresholds and rescorer.

        Args:
            source: shipped name, model folder or weights.h5 file.
            grow: see :func:`nucleus_course.models.weights.folder.load_into`.

        Raises:
            UserError: not everything fits; the model is unchanged then.
        """
        path = find_weights(source)
        point = self.operating_point(path)
        self.load_report = load_into(self.network, path, grow=grow)
        self.thresholds, self.rescorer, self.novelty = point

    def operating_point(self, path):
        """Thresholds, rescorer and novelty that belong to weights at ``path`` (a folder or a file)."""
        if path.is_dir():
            return read_config(path)[1], Rescorer.load(path), novelty.Novelty.load(path)
        return self.thresholds, None, None

    def save(self, folder, half=False, max_mb=None):
        """Write config.json, thresholds.json, the weights and, where there is one, rescoring.json.

        Args:
            folder: made if it does not exist; files in it are replaced one by one.
            half: store kernels as float16.
            max_mb: largest size of one file in MB; larger weights are spread over several files.

        Returns:
            The folder's path.
        """
        folder = Path(folder)
        save_network(self.network, folder, half, max_mb)
        (folder / novelty.FILE).unlink(missing_ok=True)
        if self.novelty is not None:
            self.novelty.save(folder)
        Rescorer.remove(folder)  # it was fitted to the weights that were here
        save_thresholds(self.thresholds, folder)
        if self.rescorer is not None:
            self.rescorer.save(folder)
        return folder

    def use_engine(self, name, **options):
        """Run predictions on ``keras`` (the backend that is loaded) or ``openvino``; returns the model.

        Args:
            options: for :class:`~nucleus_course.prediction.engines.openvino.OpenVINOEngine`.

        Raises:
            UserError: an unknown engine, one that is not installed, or a model it cannot run.
        """
        if name not in ENGINES:
            raise UserError(f"unknown runtime '{name}': choose one of {', '.join(ENGINES)}")
        self._engine = None
        if name == "openvino":
            from nucleus_course.prediction.engines.openvino import OpenVINOEngine

            self._engine = OpenVINOEngine(self, **options)
        return self

    def predict(
        self,
        image: Any,
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou: float | None = None,
        mask_threshold: float | None = None,
        flips: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        progress: bool | None = None,
        polarity: str = "auto",
        input: str | None = None,
        diameter: float | str | None = "auto",
    ) -> Any:
        """Nuclei in one image, or in several, at their own size.

        Args:
            image: (H, W), (H, W, 3 or 4) or (3 or 4, H, W); uint8, uint16 or float; anything NumPy
                reads as an array, such as a dask or zarr array; or the path of a file. A list of these
                gives a list, an iterator gives an iterator. A Mask R-CNN with the canonical input processes
                files and arrays on disk piece by piece from 2**24 pixels; `nucleus_course.predict_many`
                writes such results to files.
            score_threshold: drop detections below it here. By default all above 0.02 are returned, which AP
                needs (after piecewise processing, only those above the operating point); ``label_image``
                and ``confident`` apply the model's operating point.
            max_detections: most detections; by default there is no limit.
            nms_iou, mask_threshold, flips: override the model's thresholds; ``flips`` is how many of
                the image's four flips are used (1: the image alone).
            tile, overlap: side of a tile, and how much neighbouring tiles share, pixels. By default images
                with a side over 768 network pixels are tiled; ``tile=0`` starts with the whole image.
                Crowded parts are divided into quarters and processed again.
            polarity: how nuclei look, "bright" or "dark"; "auto" lets the canonical input decide.
            input: "canonical" or "colour" instead of what the model learned with.
            diameter: median diameter of the nuclei, image pixels. The image is resized so that they have the
                size the network knows best. "auto": measured in a first pass, and resized only if they are
                smaller or larger than the model's ``thresholds.diameters`` and the network is surer of what
                it then finds; models without these never resize. "none": never.
            progress: whether to show a progress bar; by default if there are many tiles.

        Returns:
            :class:`~nucleus_course.prediction.detections.Detections`, or LabelDetections of a U-Net;
            several for several images.

        Raises:
            UserError: not an image, a file that cannot be read, or an option out of range.
        """
        if isinstance(image, (list, Iterator)):
            given = dict(locals())
            options = {name: given[name] for name in self.predict.__kwdefaults__}
            found = (self.predict(one, **options) for one in image)
            return list(found) if isinstance(image, list) else found
        changes = {"nms_iou": nms_iou, "mask": mask_threshold, "flips": flips}
        changes = {name: value for name, value in changes.items() if value is not None}
        thresholds = dataclasses.replace(self.thresholds, **changes)
        if max_detections is not None and max_detections < 1:
            raise UserError(f"max_detections={max_detections}: give at least 1")
        if self.rescorer is not None:
            self.rescorer.check_flips(thresholds.flips)
        options = {"max_detections": max_detections, "score_threshold": score_threshold}
        options |= {"tile": tile, "overlap": overlap, "progress": progress}
        options |= {"polarity": polarity, "input": input, "diameter": diameter}
        found = predict_slide(self, image, thresholds, **options)
        if found is not None:
            return found
        image = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
        found = self._predict(image, thresholds, **options)
        found.image = image  # what a notebook cell draws on
        return found


class MaskRCNN(Segmenter):
    """Mask R-CNN, ready to predict: see :class:`Segmenter`."""

    kind, network_class, engine_class = "mask_rcnn", MaskRCNNNetwork, KerasEngine
    _predict = predict_image

    def trace(self, image, *, polarity="auto", input=None, diameter="auto"):
        """Every intermediate of one prediction, by name: a :class:`~nucleus_course.prediction.trace.Trace`."""
        return trace_image(self, image, polarity=polarity, input=input, diameter=diameter)


class UNet(Segmenter):
    """The U-Net baseline, ready to predict: see :class:`Segmenter`."""

    kind, network_class, engine_class = "unet", UNetNetwork, UNetEngine
    _predict = predict_pixels


KINDS = {kind.kind: kind for kind in (MaskRCNN, UNet)}


def load(source, **options):
    """The model of a folder or a shipped name, whatever its kind.

    Args:
        source: ``compact`` or another shipped name, a model folder, or a run folder.
        options: ``dtype_policy`` and ``seed`` of the network.

    Raises:
        UserError: not found, or not whole.
    """
    folder = find_weights(source)
    kind = KINDS["mask_rcnn"] if folder.is_file() else KINDS[kind_of(read_config(folder)[0])]
    return kind.load(source, **options)


def build(config, thresholds=None, **options):
    """A model with random weights from a ModelConfig or UNetConfig.

    Args:
        config: :class:`~nucleus_course.config.ModelConfig` or UNetConfig.
        thresholds: :class:`~nucleus_course.config.Thresholds`.
        options: ``dtype_policy`` and ``seed`` of the network.
    """
    kind = KINDS[kind_of(config)]
    return kind(kind.network_class(config, **options), thresholds)


def create(preset, weights=None, **options):
    """A model by preset name, whatever its kind; arguments as :meth:`Segmenter.from_preset`."""
    return KINDS[kind_of(get_preset(preset).model)].from_preset(preset, weights, **options)


def open_model(weights, preset=None, dtype="float32"):
    """The model of a name that ships, a model or run folder, or a weights file.

    Args:
        weights: the name, folder or file.
        preset: the network that a file without a config.json beside it is for.
        dtype: "float32" or "mixed_bfloat16".

    Raises:
        UserError: not found, or of another architecture.
    """
    path = Path(weights)
    if not path.is_file():
        return load(weights, dtype_policy=dtype)
    if preset is not None:
        return create(preset, weights=path, dtype_policy=dtype)
    if (path.parent / "config.json").is_file() and (path.parent / "thresholds.json").is_file():
        model = load(path.parent, dtype_policy=dtype)
        if path.name != "weights.h5":
            model.load_weights(path)
        return model
    raise UserError(
        f"{weights} is a file without a config.json beside it: name its preset with --preset"
    )
