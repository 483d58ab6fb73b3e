"""The networks, in :mod:`keras.ops` alone: Mask R-CNN and the U-Net, and their weights on disk."""

import os

from nucleus_course._util.lazy import lazy

# TensorFlow's log: its cost estimator warns at length of shapes that depend on the boxes, and a machine without a
# GPU gets an error about it. Exceptions are raised as ever.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_HOMES = {"MaskRCNNNetwork": "mask_rcnn.network", "UNetNetwork": "unet"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
