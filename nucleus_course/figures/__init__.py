"""Figures of data, network, training and evaluation: each a function of plain results.

Every ``draw_*`` returns ``(matplotlib.figure.Figure, caption)`` and changes no global matplotlib
state, so it works in scripts, threads and notebooks: ``course.show(...)`` or ``figure.savefig(...)``.
The caption describes the figure, with its numbers, and serves as alternative text. Figures of synthetic
images say so. Names are loaded on first use.
"""

from nucleus_course._util.lazy import lazy

_MODULES = {
    "style": "CLASS_COLOURS png short",
    "images": "draw_augmentations draw_case draw_detections draw_error_map draw_found draw_record draw_samples draw_task",
    "objects": "draw_anchor_coverage draw_crowding draw_measurements draw_round_trip draw_scales draw_scores draw_sizes",
    "network": "crowded_group draw_anchors draw_architecture draw_levels draw_masks draw_nms_steps draw_proposals draw_pyramid "
    "draw_refinement draw_roi_align",
    "targets": "draw_targets",
    "training": "draw_fine_tuning draw_learning_curve draw_moving draw_schedules LiveCurves",
    "curves": "disc_mask draw_f1_curve draw_operating_point draw_pr_curves draw_precision_recall draw_reliability "
    "draw_shifted_discs draw_threshold_curve",
    "metrics": "draw_comparison draw_intervals draw_paired_test draw_type_breakdown",
    "strangers": "draw_canonical draw_folds",
    "errors": "draw_ap_costs draw_error_counts draw_size_breakdown",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
