"""Calibration: are eight in ten of the detections scored 0.8 right?"""

import numpy as np

from nucleus_course._util.errors import UserError


def reliability(scores, bins=10):
    """Reliability of detection scores: a detection is right if it matches a nucleus at IoU 0.5 (COCO's matching).

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.

    Args:
        scores: list of :class:`~nucleus_course.evaluation.scoring.ImageScore`; without threshold, the 1000 best
            detections of each image.
        bins: number of bins of equal width over [0, 1].

    Returns:
        dict: ``bins`` [{"low", "high", "count", "score" (mean), "precision"}], the last two None if count is 0;
        ``ece``, the mean distance between score and precision, weighted by the bins' counts; ``brier``, the mean
        squared distance between score and truth; ``detections``. Fractions; None without detections.

    Raises:
        UserError: a score outside [0, 1], which cannot be a probability.
    """
    values = np.concatenate([s.matches.scores for s in scores] + [np.zeros(0)])
    right = np.concatenate([s.matches.nucleus[0] >= 0 for s in scores] + [np.zeros(0, bool)])
    if values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"scores from {values.min():g} to {values.max():g} are not probabilities: calibration needs [0, 1]"
        )
    edges = np.linspace(0, 1, bins + 1)
    place = np.minimum((values * bins).astype(int), bins - 1)  # 1 belongs to the last bin
    count = np.bincount(place, minlength=bins)
    score = np.bincount(place, values, bins) / np.maximum(count, 1)
    precision = np.bincount(place, right, bins) / np.maximum(count, 1)
    rows = [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "count": int(count[i]),
            "score": float(score[i]) if count[i] else None,
            "precision": float(precision[i]) if count[i] else None,
        }
        for i in range(bins)
    ]
    total = int(count.sum())
    ece = float(count @ np.abs(score - precision) / total) if total else None
    brier = float(np.mean((values - right) ** 2)) if total else None
    return {"bins": rows, "ece": ece, "brier": brier, "detections": total}
