"""What the network finds on a data set, computed once, in a process of its own, and kept.

Notebooks that only look at results need no network: they read the thresholds from the weights' folder and
the predictions from ``out/course``, or from ``notebooks/kept``, where those of the shipped weights come
with the course. Where both miss, another process computes them, so that its memory is free afterwards.

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
from nucleus_course.config import ModelConfig, Thresholds, from_dict
from nucleus_course.course.setup import (
    WEIGHTS_VARIABLE,
    find_model,
    project_root,
    quiet_backend,
    shown,
    work_folder,
)
from nucleus_course.course.waiting import say

UNTRAINED = "untrained"
POINT_FILES = ("config.json", "thresholds.json", "rescoring.json")  # what a prediction depends on,
WEIGHTS_FILES = "weights*.h5"  # with these
PROGRESS = "progress: "


@dataclass(frozen=True)
class Weights:
    """A model's files, without its network.

    Attributes:
        source: a name or folder for ``nucleus_course.load``; "untrained" where none was found.
        config: :class:`~nucleus_course.config.ModelConfig`.
        thresholds: :class:`~nucleus_course.config.Thresholds`, the operating point.
        rescorer: :class:`~nucleus_course.prediction.rescorer.Rescorer`, or None.
        key: 12 hex digits that change with any of the files.
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

    wanted = os.environ.get(WEIGHTS_VARIABLE, "").strip()
    folder = _folder(wanted or name)
    if folder is None and wanted:
        raise UserError(f"{WEIGHTS_VARIABLE} is set to '{wanted}', which is not a model folder")
    if folder is None:
        preset = get_preset(name)
        found = Weights(UNTRAINED, preset.model, preset.thresholds, None, UNTRAINED)
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]
        point = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
        found = Weights(
            wanted or name,
            from_dict(ModelConfig, config),
            from_dict(Thresholds, point),
            Rescorer.load(folder),
            _digest(*(p.read_bytes() for p in _files(folder))),
        )
    if verbose:
        where = "which come with the course" if folder is not None and not wanted else ""
        if wanted:
            where = f"chosen by {WEIGHTS_VARIABLE}"
        print(
            f"Weights: {Path(found.source).name}, {where}."
            if folder
            else f"Weights: none found for '{name}', so the network is untrained: expect nonsense."
        )
    return found


def predictions_for(weights: Weights, dataset, mirrored: int = 0):
    """Predictions on every image of ``dataset``; :class:`nucleus_course.Predictions`.

    Args:
        mirrored: predict on images with so many mirrored pixels on each side; the predictions have the
            larger size.
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
    """What ``explorers.collect_candidates`` gives for one image; :class:`~nucleus_course.prediction.detections.Detections`."""
    from nucleus_course.prediction.detections import Detections

    name = f"candidates-{weights.key}-{_digest(dataset.name, image_id)}.npz"
    path = _kept(name)
    if path is None:
        path = work_folder() / name
        _compute(weights, dataset.subset([image_id]), path)
    with np.load(path, allow_pickle=False) as file:
        parts = [file[key].astype(np.float32) for key in ("boxes", "scores", "masks", "spans")]
        return Detections(*parts, *file["shape"].tolist(), weights.thresholds)


def _folder(source: str) -> Path | None:
    root = Path(__file__).resolve().parents[2]
    places = (root / "data" / "weights", root / "nucleus_course" / "_weights")
    tried = [Path(source), Path(source) / "weights", *(place / source for place in places)]
    return next((folder for folder in tried if (folder / "thresholds.json").is_file()), None)


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
    """Let another process compute ``out``; its progress goes to standard error."""
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
    """The other process: detect, and write the file."""
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
