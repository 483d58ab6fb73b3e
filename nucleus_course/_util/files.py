"""Atomic writing: a file appears under its name complete, or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path

from nucleus_course._util.errors import UserError

PARTIAL = ".partial"
STALE_SECONDS = 3600


@contextlib.contextmanager
def atomic_write(path):
    """Yield the path of an empty temporary file, which becomes ``path`` on a clean exit.

    The file lies beside the target, keeps its endings (some writers choose the format by them) and
    has a unique name. Missing folders are created. On an error the temporary file is removed and the
    old one kept.

        with atomic_write("report.json") as place:
            place.write_text("{}")
    """
    path = Path(os.path.realpath(path))  # replace a link's target, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    endings = "".join(path.suffixes[-2:])
    endings = endings if len(os.fsencode(endings)) < 32 else ""
    place = path.with_name(f".{os.getpid():x}-{secrets.token_hex(8)}{PARTIAL}{endings}")
    # Created here, so that its permissions follow the umask.
    os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield place
        with open(place, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(place, path)
    except BaseException:
        with contextlib.suppress(OSError):
            place.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(path):
    """As :func:`atomic_write`, for a folder: an existing one is replaced as a whole, or kept on an error."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{os.getpid():x}-{secrets.token_hex(8)}{PARTIAL}")
    old = place.with_suffix(f"{PARTIAL}-old")
    try:
        place.mkdir()
        yield place
        if path.exists():
            path.rename(old)
        place.rename(path)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_file(path, data):
    """Write bytes or text (UTF-8, line ends unchanged) with :func:`atomic_write`."""
    with atomic_write(path) as place:
        place.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))


def read_json(path, remedy="", error_type=UserError):
    """The contents of a JSON file; the error names a file that cannot be read, and ends with ``remedy``."""
    end = f": {remedy}" if remedy else ""
    try:
        return json.loads(
            Path(path).read_bytes()
        )  # finds the encoding, and skips a byte order mark
    except OSError as error:
        raise error_type(f"{path}: cannot be read ({error.strerror or error}){end}") from None
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path}: not JSON ({error}){end}") from None


def write_json(path, document, indent=1):
    """Write JSON atomically. Not-a-number is refused: JSON has none."""
    write_file(path, json.dumps(document, indent=indent, allow_nan=False) + "\n")


def sha256_of(path):
    """The SHA-256 of a file, hexadecimal, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def remove_stale(folder):
    """Remove temporary files and folders of killed processes that are older than an hour."""
    for place in Path(folder).glob(f".*{PARTIAL}*"):
        with contextlib.suppress(OSError):  # gone already, or another user's
            if time.time() - place.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(place) if place.is_dir() else place.unlink()
