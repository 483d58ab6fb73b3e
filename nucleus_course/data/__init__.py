"""Data: reading, linting, caching, splitting and augmenting nucleus images.

The names below are loaded on first use.
"""

from nucleus_course._util.lazy import lazy

_HOMES = {
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
    "list_images": "listing",
    "load_dataset": "dataset",
    "near_duplicate_groups": "duplicates",
    "read_image": "read",
    "split_ids": "splits",
    "to_rgb8": "read",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
