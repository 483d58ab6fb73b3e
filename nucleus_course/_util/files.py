"""Files are written whole or not at all."""

import os
from pathlib import Path


def write_atomic(path, data):
    """Write bytes or text to a file that is either the old one or the whole new one, never a part."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    mode = "wb" if isinstance(data, bytes) else "w"
    try:
        with open(
            partial, mode, **({} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"})
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:  # a full disk: leave it no fuller
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, write) -> None:
    """Call ``write`` with a temporary path beside ``path``, then move the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.partial")
    try:
        write(place)
        os.replace(place, path)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
