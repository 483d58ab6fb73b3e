"""Helpers for the notebooks: `from nucleus_course import course`, then ``course.find_data()`` and others.

Importing this package loads no backend.
"""

from nucleus_course._util.lazy import lazy

_HOMES = {
    name: home
    for home, names in {
        "setup": "CourseData project_root shown find_data find_model work_folder quiet_backend free_memory show claim "
        "check_setup pick_crowded pick_each_type",
        "kept": "Weights find_weights predictions_for candidates_for",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
