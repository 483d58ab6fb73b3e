"""The data room: reading, linting, caching, splitting, augmenting and making nucleus images.

The names below are loaded on first use, so that importing this package (as ``config`` does for
:class:`AugmentConfig`) costs nothing.
"""

from importlib import import_module

_HOMES = {
    "AugmentConfig": "augment",
    "Augmenter": "augment",
    "Dataset": "dataset",
    "LintReport": "lint",
    "Issue": "lint",
    "Record": "dataset",
    "areas_from_labels": "labels",
    "boxes_from_labels": "labels",
    "download_bbbc038": "download",
    "image_type": "image_types",
    "IMAGE_TYPES": "image_types",
    "lint_dataset": "dataset",
    "load_dataset": "dataset",
    "near_duplicate_groups": "duplicates",
    "read_image": "images",
    "split_ids": "splits",
    "to_rgb8": "images",
    "write_sample": "synthetic",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
