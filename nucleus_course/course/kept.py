"""A model's predictions on a data set, computed once, in a separate process, and kept.

Notebooks that only look at results need no network: they read the thresholds from the weights' folder and
the predictions from ``out/course``, or from ``notebooks/kept``, which holds those of the shipped weights.
If both lack them, another process computes them, so that its memory is free afterwards.

    weights = course.find_weights()
    predictions = course.predictions_for(weights, dataset)
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_file
from nucleus_course.config import ModelConfig, Thresholds
from nucleus_course.course.setup import (
    WEIGHTS_VARIABLE,
    chosen_weights,
    find_model,
    project_root,
    quiet_backend,
    shown,
    work_folder,
)
from nucleus_course.course.waiting import say
from nucleus_course.models.weights.folder import find_weights as find_folder
from nucleus_course.models.weights.folder import read_config

UNTRAINED = "untrained"
POINT_FILES = ("config.json", "thresholds.json", "rescoring.json")  # a prediction depends on these
WEIGHTS_FILES = "weights*.h5"  # and these
RULES = "sizes by a first look"  # changes when the same files predict something else
PROGRESS = "progress: "


@dataclass(frozen=True)
class Weights:
    """A model's files, without its network.

    Attributes:
        source: a name or folder for ``nucleus_course.load``; "untrained" if none was found.
        config: :class:`~nucleus_course.config.ModelConfig`.
        thresholds: :class:`~nucleus_course.config.Thresholds`, the operating point.
        rescorer: :class:`~nucleus_course.prediction.rescorer.Rescorer`, or None.
        key: 12 hex digits that change with any of the files, and with :data:`RULES`.
    """

    source: str
    config: ModelConfig
    thresholds: Thresholds
    rescorer: object
    key: str


def find_weights(name: str = "compact", verbose: bool = True) -> Weights:
    """The shipped weights ``name``, or those that ``NUCLEUS_COURSE_WEIGHTS`` names, as :class:`Weights`.

    Raises:
        UserError: the variable names something that is not a model folder.
    """
    from nucleus_course.prediction.rescorer import Rescorer
    from nucleus_course.presets import get_preset

    source, about = chosen_weights(name)
    if verbose:
        print(about)
    if source is None:
        preset = get_preset(name)
        return Weights(UNTRAINED, preset.model, preset.thresholds, None, UNTRAINED)
    folder = find_folder(source)
    if folder.is_file():
        raise UserError(f"{WEIGHTS_VARIABLE}: {source} is a file: give its model folder")
    key = _digest(RULES, *(path.read_bytes() for path in _files(folder)))
    return Weights(source, *read_config(folder), Rescorer.load(folder), key)


def predictions_for(weights: Weights, dataset, mirrored: int = 0):
    """Predictions on every image of ``dataset``; :class:`nucleus_course.Predictions`.

    Args:
        mirrored: mirrored pixels to add on each side; the predictions then have the larger size.
    """
    from nucleus_course.prediction.interchange import Predictions

    data = _digest(dataset.name, str(mirrored), *dataset.ids)
    path = _kept(f"predictions-{weights.key}-{data}.json")
    if path is None:
        path = work_folder() / f"predictions-{weights.key}-{data}.json"
        _compute(weights, dataset, path, mirrored=mirrored)
    else:
        print(f"Predictions on {len(dataset)} images: {shown(path)}")
    return Predictions.load(path)


def candidates_for(weights: Weights, dataset, image_id: str):
    """``explorers.collect_candidates`` for one image: :class:`~nucleus_course.prediction.detections.Detections`."""
    from nucleus_course.prediction.detections import Detections

    name = f"candidates-{weights.key}-{_digest(dataset.name, image_id)}.npz"
    path = _kept(name)
    if path is None:
        path = work_folder() / name
        _compute(weights, dataset.subset([image_id]), path)
    with np.load(path, allow_pickle=False) as file:
        parts = [file[key].astype(np.float32) for key in ("boxes", "scores", "masks", "spans")]
        return Detections(*parts, *file["shape"].tolist(), weights.thresholds)


def _files(folder: Path) -> list[Path]:
    point = [folder / name for name in POINT_FILES if (folder / name).is_file()]
    return point + sorted(folder.glob(WEIGHTS_FILES))


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\n")
    return digest.hexdigest()[:12]


def _kept(name: str) -> Path | None:
    """A file computed earlier, unpacked into ``out/course`` if it came with the course."""
    path = work_folder() / name
    root = project_root()
    packed = root / "notebooks" / "kept" / f"{name}.gz" if root else None
    if not path.exists() and packed is not None and packed.exists():
        write_file(path, gzip.decompress(packed.read_bytes()))
    return path if path.exists() else None


def _compute(weights: Weights, dataset, out: Path, mirrored: int = 0) -> None:
    """Compute ``out`` in another process; its progress goes to standard error."""
    request = {
        "weights": weights.source,
        "source": str(dataset.source),
        "ids": list(dataset.ids),
        "mirrored": mirrored,
        "out": str(out),
    }
    print(f"Detecting nuclei in {len(dataset)} images, once; the result is kept ...")
    process = subprocess.Popen(
        [sys.executable, "-m", "nucleus_course.course.kept", json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    log = []
    for line in process.stdout:
        if line.startswith(PROGRESS):
            say(line.removeprefix(PROGRESS).strip())
        else:
            log.append(line)
    if process.wait() or not out.exists():
        raise UserError("the detection ended early:\n" + "".join(log[-20:]))


def _answer(request: dict) -> None:
    """In the other process: detect, and write the file."""
    import nucleus_course as nc

    quiet_backend()
    model = find_model(verbose=False)
    dataset = nc.load_dataset(request["source"], "all", progress=False).subset(request["ids"])
    out, margin = Path(request["out"]), request["mirrored"]
    if out.suffix == ".npz":
        import io

        from nucleus_course.course.explorers import collect_candidates

        found = collect_candidates(model, dataset[0].image)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            boxes=found.boxes,
            scores=found.scores,
            masks=found.mask_probs.astype(np.float16),
            spans=found.mask_boxes,
            shape=[found.height, found.width],
        )
        write_file(out, buffer.getvalue())
        return
    around = ((margin, margin), (margin, margin), (0, 0))

    def records():
        for number, record in enumerate(dataset, start=1):
            yield replace(record, image=np.pad(record.image, around, mode="reflect"), deep=None)
            print(f"{PROGRESS}{number} of {len(dataset)} images", flush=True)

    nc.predict_dataset(model, records(), progress=False).save(out)


if __name__ == "__main__":
    _answer(json.loads(sys.argv[1]))
