"""Figures of data, training and evaluation, one pure function each.

Every ``draw_*`` takes plain results and returns ``(matplotlib.figure.Figure, caption)``. No global matplotlib
state is touched, so they work in scripts, threads and notebooks alike: show the figure, or ``figure.savefig(...)``.
The caption says in words what the figure shows, with its numbers, and serves as alternative text. Colours are Okabe
and Ito's and never carry a meaning alone. Where the images are synthetic the figure and the caption say so.
"""

from nucleus_course._util.lazy import lazy

_HOMES = {
    "CLASS_COLOURS": "style",
    "draw_ap_costs": "errors",
    "draw_comparison": "metrics",
    "draw_detections": "images",
    "draw_error_map": "images",
    "draw_f1_curve": "curves",
    "draw_learning_curve": "training",
    "draw_pr_curves": "curves",
    "draw_reliability": "curves",
    "draw_samples": "images",
    "draw_size_breakdown": "errors",
    "draw_threshold_curve": "curves",
    "draw_type_breakdown": "metrics",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
