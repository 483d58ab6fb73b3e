"""Evaluation: every metric for the predictions of any model, and where a model fails.

The names below are loaded on first use.
"""

from nucleus_course._util.lazy import lazy

_HOMES = {
    "analyse_errors": "errors.analysis",
    "choose_thresholds": "thresholds",
    "CLASSES": "errors.taxonomy",
    "compare": "bootstrap",
    "Comparison": "bootstrap",
    "comparison_table": "tables",
    "ErrorAnalysis": "errors.analysis",
    "evaluate": "report",
    "KEYS": "metrics",
    "METRICS": "metrics",
    "OperatingPoints": "thresholds",
    "reliability": "calibration",
    "Report": "report",
    "ThresholdChoice": "thresholds",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
