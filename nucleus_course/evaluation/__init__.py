"""The evaluation room: predictions of any model, every metric, and where a model fails.

The names below are loaded on first use.
"""

from nucleus_course.lazy import lazy

_HOMES = {
    "analyse_errors": "errors",
    "benchmark_evaluate": "benchmark",
    "cap_effect": "limits",
    "choose_thresholds": "thresholds",
    "CLASSES": "taxonomy",
    "compare": "bootstrap",
    "Comparison": "bootstrap",
    "comparison_table": "tables",
    "ErrorAnalysis": "errors",
    "evaluate": "report",
    "ImagePredictions": "predictions",
    "KEYS": "metrics",
    "mask_grid_effect": "limits",
    "METRICS": "metrics",
    "OperatingPoints": "thresholds",
    "Predictions": "predictions",
    "PredictionsError": "predictions",
    "reliability": "calibration",
    "Report": "report",
    "rle_from_labels": "rle",
    "seen_and_unseen": "leakage",
    "ThresholdChoice": "thresholds",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
