"""Mask R-CNN, one idea of the paper a file."""

import os

from nucleus_course.lazy import lazy

# TensorFlow's cost estimator warns at length of shapes that depend on the boxes; its errors still come.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_HOMES = {"MaskRCNN": "mask_rcnn"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
