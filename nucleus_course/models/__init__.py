"""Mask R-CNN, one idea of the paper a file."""

import os

from nucleus_course._util.lazy import lazy

# TensorFlow's log: its cost estimator warns at length of shapes that depend on the boxes, and a machine without a
# GPU is told so as an error. Exceptions come all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_HOMES = {"MaskRCNN": "mask_rcnn.network"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
