"""The length of a training, and the stage of an epoch."""

import dataclasses
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """Stages by epochs, or stretched over wall time.

    Attributes:
        stages: tuple of :class:`~nucleus_course.config.StageConfig`.
        minutes: total wall time, or None if epochs decide.
    """

    stages: tuple
    minutes: float | None = None

    @property
    def epochs(self):
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def over(self, epoch, seconds):
        """Whether the training is done after these epochs and seconds."""
        return epoch >= self.epochs if self.minutes is None else seconds >= 60.0 * self.minutes

    def share(self, seconds):
        """The share of the time that has passed, in [0, 1]; None if epochs decide."""
        return min(1.0, seconds / (60.0 * self.minutes)) if self.minutes else None


def scale_stages(stages, epochs):
    """Stages with their epochs scaled to a total of ``epochs``, at least one each as far as possible."""
    if epochs is None:
        return tuple(stages)
    ends = np.cumsum([s.epochs for s in stages])
    ends = np.round(ends * epochs / ends[-1]).astype(int)
    first = np.arange(1, len(stages) + 1)  # one epoch each
    ends = np.minimum(np.clip(ends, first, np.maximum(first, epochs - first[::-1] + 1)), epochs)
    counts = np.diff(np.concatenate([[0], ends]))
    return tuple(dataclasses.replace(s, epochs=int(n)) for s, n in zip(stages, counts) if n > 0)


def locate(stages, epoch, share=None):
    """The stage of an epoch or, with ``share`` in [0, 1], of a share of the time.

    Returns:
        Stage number; epoch within it, None with ``share``; progress within it in [0, 1], None without ``share``.
    """
    ends = np.cumsum([s.epochs for s in stages])
    if share is None:
        number = int(np.searchsorted(ends, epoch, side="right"))
        return number, epoch - int(ends[number] - stages[number].epochs), None
    edges = np.concatenate([[0.0], ends / ends[-1]])
    number = min(int(np.searchsorted(edges, share, side="right")) - 1, len(stages) - 1)
    part = (share - edges[number]) / (edges[number + 1] - edges[number])
    return number, None, part
