"""The evaluation room: predictions of any model, every metric, and where a model fails.

The names below are loaded on first use.
"""

from importlib import import_module

_HOMES = {
    "CLASSES": "taxonomy",
    "Comparison": "bootstrap",
    "ErrorAnalysis": "errors",
    "ImagePredictions": "predictions",
    "KEYS": "metrics",
    "METRICS": "metrics",
    "Predictions": "predictions",
    "OperatingPoints": "thresholds",
    "PredictionsError": "predictions",
    "Report": "report",
    "ThresholdChoice": "thresholds",
    "analyse_errors": "errors",
    "benchmark_evaluate": "benchmark",
    "cap_effect": "limits",
    "choose_thresholds": "thresholds",
    "compare": "bootstrap",
    "comparison_table": "tables",
    "evaluate": "report",
    "reliability": "calibration",
    "mask_grid_effect": "limits",
    "rle_from_labels": "rle",
    "seen_and_unseen": "leakage",
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
