"""Figures of data, training and evaluation, one pure function each.

Every ``draw_*`` takes plain results and returns ``(matplotlib.figure.Figure, caption)``. No global matplotlib
state is touched, so they work in scripts, threads and notebooks alike: show the figure, or ``figure.savefig(...)``.
The caption says in words what the figure shows, with its numbers, and serves as alternative text. Colours are Okabe
and Ito's and never carry a meaning alone. Where the images are synthetic the figure and the caption say so.
"""

from importlib import import_module

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


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
