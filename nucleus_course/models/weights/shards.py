"""Weights in several files, for hosts that limit a file's size: weights-00001-of-00003.h5 and so on."""

import re
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write, sha256_of, write_file
from nucleus_course._util.tables import read_text

WHOLE = "weights.h5"
SUMS = "SHA256SUMS"  # of a model folder's weights, in the format of `sha256sum -c`
NAME = re.compile(r"weights-(\d{5})-of-(\d{5})\.h5")
MOST = 1 << 33  # bytes of a file's arrays in memory
OVERHEAD = 4096  # bytes that HDF5 adds for each variable, at most


def write_h5(path, arrays, half=False):
    """Write {name: array} to a flat HDF5 file, atomically; ``half`` stores kernels as float16."""
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

    arrays, left = {}, MOST

    def visit(name, item):
        nonlocal left
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise ValueError(f"{name} holds no numbers")
            left -= item.nbytes
            if left < 0:
                raise ValueError(f"{name} is too large")
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # HDF5's on damage
        reason = " ".join(str(error).split()) or "damaged"
        raise UserError(f"weights {path} cannot be read: {reason}") from None
    return arrays


def pack(sizes, limit):
    """Group the names of ``sizes`` {name: bytes}, in order, so that each group sums to at most ``limit``.

    Raises:
        UserError: one of them is larger than the limit.
    """
    groups, room = [], 0
    for name, size in sizes.items():
        if size > limit:
            raise UserError(
                f"{name} alone has {size / 1e6:.1f} MB, more than the limit for one file ({limit / 1e6:.1f} MB): raise the limit"
            )
        if size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def write_weights(folder, arrays, half=False, max_mb=None):
    """Write {name: array} as ``weights.h5`` or, with ``max_mb``, as files of at most that many MB (10^6 bytes).

    Files of an earlier save are removed when the new ones are complete; their SHA-256 is written last.
    """
    folder = Path(folder)
    (folder / SUMS).unlink(missing_ok=True)  # first: an interrupted save must not leave wrong sums
    groups, names = [list(arrays)], [WHOLE]
    if max_mb is not None:
        width = {name: 2 if half and np.ndim(a) > 1 else 4 for name, a in arrays.items()}
        sizes = {name: np.size(a) * width[name] + OVERHEAD for name, a in arrays.items()}
        groups = pack(sizes, int(max_mb * 1e6))
        names = part_names(len(groups))
    for name, group in zip(names, groups):
        write_h5(folder / name, {key: arrays[key] for key in group}, half)
    for old in folder.glob("weights*.h5"):
        if old.name not in names and (old.name == WHOLE or NAME.fullmatch(old.name)):
            old.unlink()
    write_file(folder / SUMS, "".join(f"{sha256_of(folder / n)}  {n}\n" for n in names))


def part_names(count):
    """The names of the ``count`` files of one model's weights."""
    return [f"weights-{i:05d}-of-{count:05d}.h5" for i in range(1, count + 1)]


def check_sums(files):
    """Compare the weights of a model folder with its SHA256SUMS, if it has one.

    Raises:
        UserError: a file has changed.
    """
    table = files[0].parent / SUMS
    if not table.is_file():
        return
    sums = {line[66:]: line[:64] for line in read_text(table).splitlines()}
    for file in files:
        if sums.get(file.name) != sha256_of(file):
            raise UserError(
                f"{file} does not match {SUMS} beside it: it is damaged, or another file; "
                f"copy the folder again, or delete {SUMS} if you put the file there yourself"
            )


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
    names = part_names(count)
    absent = [name for name in names if name not in parts]
    if absent:
        raise UserError(
            f"{folder} lacks {absent[0]}, one of the {count} files of its weights: copy all of them"
        )
    return [parts[name] for name in names]
