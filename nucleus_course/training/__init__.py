"""Staged training with full-state resume."""

from nucleus_course.training.loop import History, TrainingDiverged, train
from nucleus_course.training.stages import count_trainable, set_trainable

__all__ = ["History", "TrainingDiverged", "count_trainable", "set_trainable", "train"]
