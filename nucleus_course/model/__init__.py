"""Mask R-CNN, one idea of the paper a file."""


def __getattr__(name):
    if name == "MaskRCNN":
        from nucleus_course.model.mask_rcnn import MaskRCNN

        return MaskRCNN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
