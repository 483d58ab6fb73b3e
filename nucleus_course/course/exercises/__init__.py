"""The checks of the notebooks' exercises: ``check_nms(nms)`` says passed, not attempted or not yet.

They use only NumPy; importing them loads no deep-learning backend.
"""

from nucleus_course.course.exercises.checks import Case, CheckResult, run_check
from nucleus_course.course.exercises.data import (
    check_box_of,
    check_density,
    check_flip_boxes,
    check_measure,
    check_recall_under_cap,
    check_touching_pairs,
)
from nucleus_course.course.exercises.evaluation import (
    check_average_precision,
    check_classify_detection,
    check_edge_ids,
    check_label_image,
    check_mask_iou,
    check_match,
    check_paired_interval,
)
from nucleus_course.course.exercises.model import (
    check_bilinear,
    check_box_iou,
    check_encode_box,
    check_nms,
    check_paste_mask,
    check_pyramid_level,
)
from nucleus_course.course.exercises.strangers import check_leaked, check_mean_over_sources
from nucleus_course.course.exercises.teaching import check_anchor_labels, check_top_down
from nucleus_course.course.exercises.training import (
    check_clip_by_global_norm,
    check_smooth_l1,
    check_warmup_cosine,
)

__all__ = [name for name in dir() if name.startswith("check_")] + [
    "Case",
    "CheckResult",
    "run_check",
]
