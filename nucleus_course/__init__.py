"""Mask R-CNN for nucleus segmentation in Keras 3: a course and an analysis package.

    import nucleus_course as nc

    dataset = nc.load_dataset("sample", "validation")
    model = nc.load("compact")
    detections = model.predict(dataset[0].image)
    report = nc.evaluate(dataset, nc.predict_dataset(model, dataset))

The names below load on first use, so importing the package is quick and imports no backend
(TensorFlow, JAX or PyTorch); `nc.MaskRCNN`, `nc.train` and `nc.predict_dataset` do.
"""

from __future__ import annotations

from nucleus_course._util.lazy import lazy

__version__ = "0.1.0"

# Public name -> the module that defines it.
_HOMES = {
    "AugmentConfig": "config",
    "Augmenter": "data",
    "Dataset": "data",
    "Detections": "prediction.detections",
    "History": "training",
    "MaskRCNN": "prediction.segmenter",
    "ModelConfig": "config",
    "PRESETS": "presets",
    "Predictions": "prediction.interchange",
    "Preset": "config",
    "Record": "data",
    "Report": "evaluation",
    "StageConfig": "config",
    "Thresholds": "config",
    "TrainingConfig": "config",
    "UNet": "prediction.segmenter",
    "UserError": "_util.errors",
    "boxes_from_labels": "data",
    "download_bbbc038": "data",
    "create": "prediction.segmenter",
    "evaluate": "evaluation",
    "get_preset": "presets",
    "image_type": "data",
    "lint_dataset": "data",
    "load": "prediction.segmenter",
    "list_images": "data",
    "load_dataset": "data",
    "predict_dataset": "prediction.datasets",
    "predict_many": "prediction.cluster",
    "read_image": "data",
    "to_rgb8": "data",
    "train": "training",
}

__all__ = ["__version__", *_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
