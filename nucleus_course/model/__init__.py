"""Mask R-CNN, one idea of the paper a file."""

from nucleus_course.lazy import lazy

_HOMES = {"MaskRCNN": "mask_rcnn"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
