"""Weights in several files, for places that limit a file's size: weights-00001-of-00003.h5 and so on."""

import re
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write

WHOLE = "weights.h5"
NAME = re.compile(r"weights-(\d{5})-of-(\d{5})\.h5")
OVERHEAD = 4096  # bytes a variable, at the most, that HDF5 adds


def write_h5(path, arrays, half=False):
    """Write {name: array} to a flat HDF5 file, atomically; ``half`` stores kernels as float16, the rest as is."""
    import h5py

    with atomic_write(path) as place, h5py.File(place, "w") as file:
        for name, array in arrays.items():
            array = np.asarray(array, "float32")
            file[name] = array.astype("float16") if half and array.ndim > 1 else array


def read_h5(path):
    """The arrays of a flat HDF5 file: {name: array}.

    Raises:
        UserError: the file cannot be read.
    """
    import h5py

    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {str(error).splitlines()[0]}") from None
    return arrays


def pack(sizes, limit):
    """Names in groups whose sizes sum to at most ``limit``, in the order of ``sizes`` {name: bytes}.

    Raises:
        UserError: one of them is larger than the limit.
    """
    groups, room = [], 0
    for name, size in sizes.items():
        if size > limit:
            raise UserError(
                f"{name} alone takes {size / 1e6:.1f} MB, more than a file may have ({limit / 1e6:.1f} MB): raise the limit"
            )
        if size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def write_weights(folder, arrays, half=False, max_mb=None):
    """Write {name: array} as ``weights.h5`` or, with ``max_mb``, as files of at most so many MB (10^6 bytes).

    Files of an earlier save go when the new ones are complete.
    """
    folder = Path(folder)
    groups = [list(arrays)]
    if max_mb is not None:
        sizes = {
            name: np.size(a) * (2 if half and np.ndim(a) > 1 else 4) + OVERHEAD
            for name, a in arrays.items()
        }
        groups = pack(sizes, int(max_mb * 1e6))
    names = (
        [WHOLE]
        if max_mb is None
        else [f"weights-{i:05d}-of-{len(groups):05d}.h5" for i in range(1, len(groups) + 1)]
    )
    for name, group in zip(names, groups):
        write_h5(folder / name, {key: arrays[key] for key in group}, half)
    for old in folder.glob("weights*.h5"):
        if old.name not in names and (old.name == WHOLE or NAME.fullmatch(old.name)):
            old.unlink()


def weight_files(folder):
    """The files that hold a model folder's weights.

    Raises:
        UserError: none, or a part is missing.
    """
    folder = Path(folder)
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    parts = {path.name: path for path in folder.glob("weights-*.h5") if NAME.fullmatch(path.name)}
    if not parts:
        raise UserError(f"{folder} has no {WHOLE}: it is not a model folder")
    count = max(int(NAME.fullmatch(name).group(2)) for name in parts)
    names = [f"weights-{i:05d}-of-{count:05d}.h5" for i in range(1, count + 1)]
    absent = [name for name in names if name not in parts]
    if absent:
        raise UserError(
            f"{folder} lacks {absent[0]}, one of {count} files of its weights: copy all of them"
        )
    return [parts[name] for name in names]
