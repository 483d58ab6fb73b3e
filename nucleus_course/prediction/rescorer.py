"""Scores that predict how well a nucleus is outlined, learned from a model's own detections after its training.

The class probability answers "is there a nucleus in this box?". AP and the Data Science Bowl's score ask more: is
the mask tight, and is it the only one on its nucleus? Mask Scoring R-CNN (Huang et al. 2019) learns the mask's IoU
inside the network. Here a few small networks learn it afterwards, from features of each detection and its
neighbours (as in Hosang et al. 2017, "Learning non-maximum suppression"). The new score is the expected IoU with a
nucleus that no higher-scored detection has taken. :mod:`nucleus_course.evaluation.rescoring` fits it.
"""

import json
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json, write_file
from nucleus_course.geometry.boxes import iou_matrix

FILE, FORMAT = "rescoring.json", 1
SURE = 0.5  # class probability of a sure detection
SOME = 0.05  # class probability of a detection that is a little more than noise
REACH = 4.0  # features are clipped to this many standard deviations

FEATURES = (
    "class",  # log odds of the class probability
    "certainty",  # log odds of the mean mask probability inside the mask
    "sharp",  # cells at 0.7 or more per cell at 0.5 or more
    "rim",  # cells at 0.7 or more per cell at 0.3 or more
    "fill",  # share of the mask's grid at 0.5 or more
    "elongation",  # |log(height / width)|
    "size",  # log of the square root of the box's area, network pixels
    "relative_size",  # the same, minus the median of the image's sure detections
    "overlap",  # largest box IoU with a detection of higher class probability
    "sureness",  # mean class probability of the image's sure detections
    "crowd",  # log(1 + sure detections)
    "clutter",  # detections at 0.05 or more per sure one, at most 6
)


def mask_certainty(probs):
    """Mean probability over the cells at 0.5 or more: (N, S, S) -> (N,); 0 where there is none."""
    on = (probs >= 0.5).astype("float32")
    return (probs * on).sum(axis=(1, 2)) / np.maximum(on.sum(axis=(1, 2)), 1)


def outline_quality(probs):
    """How little a nucleus's area depends on where its outline is drawn: (N, S, S) -> (N,) in [0, 1].

    Cells at 0.7 or more per cell at 0.3 or more: at 0.9 a strict outline holds 90% of the area of a lax one.
    """
    low, high = ((probs >= cut).sum(axis=(1, 2)) for cut in (0.3, 0.7))
    return high / np.maximum(low, 1)


def own_scores(config, scores, probs):
    """A network's scores without a rescorer: class probabilities (N,), times mask certainty if ``config.mask_scoring``."""
    return scores * mask_certainty(probs) if config.mask_scoring else scores


def describe(boxes, scores, probs):
    """The features of an image's detections.

    Args:
        boxes: (N, 4) float32 (y1, x1, y2, x2), network pixels, all that the final NMS kept.
        scores: (N,) float32, class probabilities; probs: (N, S, S) float32, mask probabilities.

    Returns:
        (N, len(FEATURES)) float32, columns as :data:`FEATURES`.
    """
    if len(boxes) == 0:
        return np.zeros((0, len(FEATURES)), "float32")
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).astype("float64")
    size = 0.5 * np.log(sides.prod(axis=1))
    sure = scores >= SURE
    usual = np.median(size[sure] if sure.any() else size)
    iou = iou_matrix(*[boxes.astype("float64")] * 2)
    rank = np.argsort(np.argsort(-scores, kind="stable"))
    overlap = np.where(rank[None] < rank[:, None], iou, 0.0).max(axis=1)
    on, high = ((probs >= cut).sum(axis=(1, 2)) for cut in (0.5, 0.7))
    whole = np.ones(len(boxes))
    columns = (
        _log_odds(scores),
        _log_odds(mask_certainty(probs)),
        high / np.maximum(on, 1),
        outline_quality(probs),
        on / probs[0].size,
        np.abs(np.log(sides[:, 0] / sides[:, 1])),
        size,
        size - usual,
        overlap,
        whole * (scores[sure].mean() if sure.any() else 0.0),
        whole * np.log1p(sure.sum()),
        whole * min((scores >= SOME).sum() / max(sure.sum(), 1), 6.0),
    )
    return np.stack(columns, axis=1).astype("float32")


def _log_odds(p):
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))


def _shortest(array):
    """An array as nested lists of the shortest decimals that give the same float32 values."""
    short = np.vectorize(lambda v: float(str(np.float32(v))), otypes=[object])
    return short(array.astype("float32")).tolist()


@dataclass(frozen=True)
class Rescorer:
    """Features to scores: standardised, one hidden layer of rectified units, a sigmoid; the mean of E such networks.

    Attributes:
        mean, scale: (F,) of the features it was fitted to.
        hidden_kernel (E, F, K), hidden_bias (E, K), kernel (E, K), bias (E,): the layers' weights.
        info: what it was fitted to; only ``flips`` is read, see :meth:`check_flips`.
    """

    mean: np.ndarray
    scale: np.ndarray
    hidden_kernel: np.ndarray
    hidden_bias: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    info: dict = field(default_factory=dict)

    def __call__(self, boxes, scores, probs):
        """Expected mask IoU (N,) float32 in [0, 1] of an image's detections; arguments as :func:`describe`."""
        return self.scores(describe(boxes, scores, probs))

    def scores(self, features):
        """Features (N, F) as from :func:`describe` -> (N,) float32."""
        x = np.clip((features - self.mean) / self.scale, -REACH, REACH)
        hidden = np.einsum("nf,efk->enk", x, self.hidden_kernel) + self.hidden_bias[:, None]
        hidden = np.maximum(hidden, 0.0)
        logits = np.einsum("enk,ek->en", hidden, self.kernel) + self.bias[:, None]
        return (1.0 / (1.0 + np.exp(-logits))).mean(axis=0).astype("float32")

    def check_flips(self, flips):
        """Warn, in one line, if the number of flips is not that of the fit."""
        fitted = self.info.get("flips", flips)
        if fitted != flips:
            warnings.warn(
                f"the scores were fitted with flips={fitted} and are used with flips={flips}: "
                "they may be less accurate; `nucleus-course rescore` fits them again",
                stacklevel=3,
            )

    def save(self, folder):
        """Write rescoring.json into a model folder."""
        arrays = asdict(self)
        info = arrays.pop("info")
        values = {name: _shortest(array) for name, array in arrays.items()} | {"info": info}
        text = json.dumps({"format": FORMAT, "features": FEATURES, **values})
        write_file(Path(folder) / FILE, text.replace('], "', '],\n "') + "\n")

    @staticmethod
    def remove(folder):
        """Delete rescoring.json from a model folder, if it is there."""
        (Path(folder) / FILE).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder):
        """The rescorer of a model folder; None if it has none.

        Raises:
            UserError: the file is damaged or of another version.
        """
        path = Path(folder) / FILE
        remedy = "delete it; `nucleus-course rescore` then fits it again"
        if not path.is_file():
            return None
        values = read_json(path, remedy)
        known = isinstance(values, dict) and values.pop("format", None) == FORMAT
        if not known or values.pop("features", None) != list(FEATURES):
            raise UserError(f"{path} was written by another version: {remedy}")
        try:
            info = values.pop("info")
            arrays = {name: np.asarray(value, "float32") for name, value in values.items()}
            found = cls(**arrays, info=info)
            networks, count, units = found.hidden_kernel.shape
            shapes = dict.fromkeys(("mean", "scale"), (count,)) | {"bias": (networks,)}
            shapes |= dict.fromkeys(("hidden_bias", "kernel"), (networks, units))
            wrong = [name for name, shape in shapes.items() if getattr(found, name).shape != shape]
            wrong += [name for name in values if not np.isfinite(getattr(found, name)).all()]
            if wrong or count != len(FEATURES):
                raise ValueError(", ".join(wrong) or "hidden_kernel")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is incomplete or damaged ({error}): {remedy}") from None
        return found
