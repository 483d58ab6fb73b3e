"""The networks, in :mod:`keras.ops` alone: Mask R-CNN and the U-Net, and their weights on disk."""

import os

from nucleus_course._util.lazy import lazy

# Silence TensorFlow's log: it warns at length of shapes that depend on the boxes, and reports an error on machines
# without a GPU. Exceptions are still raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_HOMES = {"MaskRCNNNetwork": "mask_rcnn.network", "UNetNetwork": "unet"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
