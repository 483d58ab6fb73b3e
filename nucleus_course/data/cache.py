"""The decoded data set in one file, keyed to its source.

The file is an uncompressed zip: ``index.json`` first, then the PNGs of each image: the picture (one
channel if grey), the uint16 label map, and the raw values if they have more than 8 bits. It is written
atomically: a killed process leaves only a temporary file, and two processes at once do the work twice.
Its name holds the source's fingerprint (path, size, time) and the format version, so that a changed
source or a newer package gets a new cache.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write, remove_stale

FORMAT = 9  # raise it whenever decoding, linting, names or image types change (see test_cache.py)
ENVIRONMENT = "NUCLEUS_COURSE_CACHE"


def cache_folder(cache_dir=None):
    """The folder of caches: the argument, else $NUCLEUS_COURSE_CACHE, else the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT]).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("nucleus_course", appauthor=False))


def cache_path(source, fingerprint, cache_dir=None):
    """The cache file of a source path with a fingerprint: <stem>-<path hash>-<key>.zip."""
    source = Path(source)
    where = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    key = hashlib.sha256(f"{FORMAT} {fingerprint}".encode()).hexdigest()[:16]
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", source.stem)[:40] or "data"
    return cache_folder(cache_dir) / f"{stem}-{where}-{key}.zip"


def encode(array, level=1):
    """An image as PNG bytes."""
    import cv2

    if array.ndim == 3:
        array = array[..., ::-1]
    strategy = cv2.IMWRITE_PNG_STRATEGY_DEFAULT
    ok, data = cv2.imencode(
        ".png", array, [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, strategy]
    )
    if not ok:
        raise ValueError(f"an array {array.dtype} {array.shape} cannot be stored as PNG")
    return data.tobytes()


def decode(data):
    """The array of :func:`encode`."""
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1])


class MemoryStore:
    """The same contents in memory, if no cache can be written."""

    path = None

    def __init__(self, index, blobs):
        self.index = index
        self._blobs = blobs

    def read(self, name):
        return self._blobs[name]


class FileStore:
    """An open cache file; reading is safe from several threads and after a fork."""

    def __init__(self, path):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._zip, self._process = zipfile.ZipFile(path), os.getpid()
        self.index = json.loads(self._zip.read("index.json"))

    def read(self, name):
        try:
            with self._lock:
                if self._zip is None or self._process != os.getpid():
                    self._zip, self._process = zipfile.ZipFile(self.path), os.getpid()
                return self._zip.read(name)
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path}: this cache is damaged ({error or 'cut short'}); delete the file and try again"
            ) from None

    def __getstate__(self):
        return {"path": self.path, "index": self.index}

    def __setstate__(self, state):
        self.path, self.index = state["path"], state["index"]
        self._lock, self._zip, self._process = threading.Lock(), None, None


def open_cache(path):
    """A :class:`FileStore`, or None if there is no intact cache at ``path``."""
    try:
        return FileStore(path)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return None


def write_cache(path, index, blobs):
    """Write the cache and open it. If that fails (no permission, disk full), warn once and go on in memory."""
    path = Path(path)
    try:
        with atomic_write(path) as place:
            _write_zip(place, index, blobs)
        _sweep(path)
    except OSError as error:
        warnings.warn(
            f"cannot write the cache {path} ({error.strerror or error}): continuing in memory; "
            f"set {ENVIRONMENT} to a folder with free space to avoid decoding again",
            stacklevel=2,
        )
    return open_cache(path) or MemoryStore(index, blobs)


def _write_zip(file, index, blobs):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo has a fixed date, so that the same source gives the same bytes.
        archive.writestr(zipfile.ZipInfo("index.json"), json.dumps(index))
        for name, data in blobs.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def _sweep(path):
    """Remove older caches of the same source, and temporary files of killed processes."""
    remove_stale(path.parent)
    family = path.stem.rsplit("-", 1)[0]
    for other in path.parent.glob(f"{family}-*.zip"):
        if other != path:
            with contextlib.suppress(OSError):  # in use by another process, or gone already
                other.unlink()
