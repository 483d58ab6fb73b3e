"""A run folder: its lock, its log, and checkpoints with the full state of a training."""

import csv
import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_file


class RunFolder:
    """A folder for one training; locked while it is open, so that two trainings cannot share it.

    Raises:
        UserError: another process uses it, or it has a checkpoint and ``resume`` is False.
    """

    def __init__(self, path, resume=False):
        import filelock

        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"run folder {path} is a file: choose another name with --run"
            ) from None
        self.lock = filelock.FileLock(self.path / "run.lock")
        try:
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                f"run folder {path} is in use by another training: wait for it, or choose another --run"
            ) from None
        if self.checkpoint.exists() and not resume:
            self.lock.release()
            raise UserError(
                f"run folder {path} already holds a training: add --resume, or choose another --run"
            )

    @property
    def checkpoint(self):
        return self.path / "checkpoint.npz"

    def close(self):
        self.lock.release()

    def write_log(self, rows):
        """Write log.jsonl and log.csv, one row per epoch, atomically."""
        write_file(self.path / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path / "log.csv", text.getvalue())


def state_variables(network):
    """The variables of a training step in a fixed order: weights, random state, optimiser.

    ``.weights.h5`` files lack the random state, so a resumed run would sample other anchors and RoIs.
    """
    metrics = {id(v) for metric in network.metrics for v in metric.variables}
    variables = [v for v in network.variables if id(v) not in metrics]
    return variables + list(network.optimizer.variables)


def snapshot(network):
    """[(variable, a copy of its value)] of :func:`state_variables`."""
    return [(v, v.numpy()) for v in state_variables(network)]


def save_checkpoint(path, network, meta):
    """Write the full state and ``meta`` (JSON) to one ``.npz`` file, atomically."""
    arrays = {f"v{i:05d}": v.numpy() for i, v in enumerate(state_variables(network))}
    arrays = {k: (a.view("uint16") if a.dtype.name == "bfloat16" else a) for k, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.frombuffer(json.dumps(meta).encode(), "uint8"), **arrays)
    write_file(path, buffer.getvalue())


def read_meta(path):
    """The ``meta`` that :func:`save_checkpoint` stored.

    Raises:
        UserError: if the file is damaged.
    """
    meta = _read(path, False)[0]
    sound = isinstance(meta, dict) and isinstance(meta.get("rows"), list)
    if not sound or not {"epoch", "elapsed", "best"} <= set(meta):
        raise UserError(f"checkpoint {path} does not hold the state of a training: start a new run")
    return meta


def _read(path, whole=True):
    """(meta, arrays) of a checkpoint; without arrays if not ``whole``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes().decode())
            return meta, [archive[key] for key in sorted(archive.files) if key != "meta" and whole]
    except (
        OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError,
        RuntimeError, zlib.error, MemoryError, SyntaxError, TypeError, AttributeError,
    ) as error:  # fmt: skip
        raise UserError(f"checkpoint {path} cannot be read ({error}): start a new run") from None


def load_checkpoint(path, network):
    """Restore the stored state of a model compiled for the same stage; returns ``meta``.

    Raises:
        UserError: the file does not fit the network.
    """
    variables = state_variables(network)
    meta, arrays = _read(path)
    if len(arrays) != len(variables) or any(
        a.shape != tuple(v.shape) for a, v in zip(arrays, variables)
    ):
        raise UserError(
            f"checkpoint {path} belongs to another model or stage: give the preset it was made with"
        )
    for array, variable in zip(arrays, variables):
        if array.dtype == "uint16" and variable.dtype == "bfloat16":  # .npz files have no bfloat16
            array = (array.astype("uint32") << 16).view("float32")  # the upper half of a float32
        variable.assign(array)
    return meta
