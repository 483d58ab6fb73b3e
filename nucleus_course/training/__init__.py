"""Staged training with full-state resume. The names below load on first use."""

from nucleus_course._util.lazy import lazy

_HOMES = {
    "History": "loop",
    "TrainingDiverged": "loop",
    "count_trainable": "stages",
    "set_trainable": "stages",
    "train": "loop",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
