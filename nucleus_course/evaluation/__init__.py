"""The evaluation room: predictions of any model, every metric, and where a model fails.

The names below are loaded on first use.
"""

from importlib import import_module

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


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
