"""Interactive parts of the notebooks: thin ipywidgets around pure draw functions.

Importing this package loads neither ipywidgets nor a deep-learning backend.
"""

from nucleus_course.course.explorers.anchors import AnchorExplorer
from nucleus_course.course.explorers.base import Control, Explorer
from nucleus_course.course.explorers.browser import ImageBrowser
from nucleus_course.course.explorers.errors import ErrorBrowser
from nucleus_course.course.explorers.thresholds import ThresholdExplorer, collect_candidates

__all__ = [
    "AnchorExplorer",
    "Control",
    "ErrorBrowser",
    "Explorer",
    "ImageBrowser",
    "ThresholdExplorer",
    "collect_candidates",
]
