"""Fetch BBBC038v1 from the Broad Institute: progress, resume, verification.

The Broad Bioimage Benchmark Collection publishes no checksums for these archives, so
:data:`CHECKSUMS` is empty. A file is checked by its length, by the checksums inside the zip, and
against the SHA-256 of an earlier download in ``SHA256SUMS`` beside it.
"""

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import sha256_of, write_file
from nucleus_course._util.progress import progress as progress_bar

PAGE = "https://bbbc.broadinstitute.org/BBBC038"
BASE_URL = "https://data.broadinstitute.org/bbbc/BBBC038/"
FILES = ("stage1_train.zip", "stage1_test.zip", "stage1_solution.csv")
CHECKSUMS = {}  # file name -> SHA-256, if the publisher states one
RECORD = "SHA256SUMS"
CHUNK = 1 << 15
TIMEOUT = (15, 60)  # seconds, to connect and between two pieces


def download_bbbc038(
    to="data/bbbc038", files=FILES, *, base_url=BASE_URL, checksums=None, progress=True
):
    """Download files of BBBC038v1 into a folder and return their paths.

    A complete file is not downloaded again; an interrupted one (``<name>.partial``) continues where
    it stopped. The SHA-256 of each file is written to ``SHA256SUMS`` in the folder.
    ``checksums`` adds to :data:`CHECKSUMS`.

    Raises :class:`UserError` if the server cannot be reached or refuses, if the download stops
    early (run it again to continue), if a checksum differs, and if the folder cannot be written.
    """
    folder = Path(to).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot make this folder ({error.strerror or error}); choose another with --to"
        ) from None
    known = {**CHECKSUMS, **(checksums or {})}
    paths = []
    for name in files:
        url = base_url.rstrip("/") + "/" + name
        with alone(folder / name):
            paths.append(_fetch(url, folder, name, known.get(name), progress))
    return paths


@contextlib.contextmanager
def alone(target):
    """Keep other processes out of a download: two that append to one partial file would corrupt it.

    The lock, a hidden empty file, stays: once removed, a process that waits for it and one that
    comes later would hold two different files.
    """
    import filelock

    try:
        with filelock.FileLock(target.with_name(f".{target.name}.lock"), timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(
            f"{target}: another process is downloading this file; wait for it"
        ) from None


def _fetch(url, folder, name, checksum, progress):
    """Download one file with pooch, which verifies and renames it, and a downloader that can resume."""
    import pooch
    import requests

    target = folder / name
    if target.exists() and _is_whole(target, checksum):
        _record(folder, name, sha256_of(target))
        return target
    downloader = ResumingDownloader(folder / f"{name}.partial", progress)
    # A killed process leaves pooch's temporary file here, where the next call removes it.
    hidden = folder / f".{name}.fetching"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        target.unlink(missing_ok=True)  # damaged: pooch would keep it
        pooch.get_logger().setLevel("WARNING")
        pooch.retrieve(
            url,
            known_hash=checksum and f"sha256:{checksum}",
            fname=name,
            path=hidden,
            downloader=downloader,
        )
        os.replace(hidden / name, target)
        shutil.rmtree(hidden, ignore_errors=True)
    except requests.exceptions.HTTPError as error:
        raise UserError(
            f"{url}: the server answered {error.response.status_code}; see {PAGE} for the current address"
        ) from None
    except requests.exceptions.ConnectionError:
        if downloader.partial.exists():
            raise UserError(
                f"{url}: the connection broke; run the command again to continue"
            ) from None
        raise UserError(
            f"{url}: {urlsplit(url).hostname} cannot be reached; connect to the internet, or use --data sample, which works offline"
        ) from None
    except requests.exceptions.RequestException as error:
        raise UserError(
            f"{url}: the download failed ({type(error).__name__}); run the command again to continue"
        ) from None
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}); free some space, or choose another folder with --to"
        ) from None
    except ValueError as error:  # pooch: the checksum does not hold; it has removed the file
        if "hash" not in str(error).lower():
            raise
        raise UserError(
            f"{url}: the downloaded file is damaged (its SHA-256 is not {checksum[:12]}...); run the download again"
        ) from None
    if not _is_whole(target, checksum):
        target.unlink(missing_ok=True)
        raise UserError(
            f"{url}: the downloaded file was damaged (empty, or not a valid zip) and has been removed; run the download again"
        )
    _record(folder, name, sha256_of(target))
    return target


class ResumingDownloader:
    """A downloader for pooch: ``(url, output_file, pooch)``. It writes to ``partial``, which is kept if
    the connection breaks, and requests the rest next time if the server's file is still the same
    (ETag or Last-Modified)."""

    def __init__(self, partial, progress=True):
        self.partial = Path(partial)
        self.notes = self.partial.with_name(self.partial.name + ".json")
        self.progress = progress

    def __call__(self, url, output_file, pooch):
        import requests

        start, validator = self._resume_point(url)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            # The server has no more bytes than are here: start again.
            if response.status_code == 416:
                self._forget()
                return self(url, output_file, pooch)
            response.raise_for_status()
            if response.status_code != 206:
                start = 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            seen = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            self.notes.write_text(json.dumps({"url": url, "validator": seen}))
            self._receive(response, start, total, url)
        if total is not None and self.partial.stat().st_size != total:
            raise requests.exceptions.ContentDecodingError("cut short")
        os.replace(self.partial, output_file)
        self._forget()

    def _resume_point(self, url):
        """(bytes here, validator) if the partial file belongs to this address, else (0, "")."""
        try:
            notes = json.loads(self.notes.read_text())
            if (
                notes["url"] == url
                and notes["validator"]
                and not notes["validator"].startswith("W/")
            ):
                return self.partial.stat().st_size, notes["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def _receive(self, response, start, total, url):
        with progress_bar(self.progress, sizes=True) as bar, open(self.partial, "ab") as file:
            file.truncate(start)
            task = bar.add_task(url.rsplit("/", 1)[-1], total=total, completed=start)
            for piece in response.iter_content(CHUNK):
                file.write(piece)
                bar.advance(task, len(piece))

    def _forget(self):
        self.partial.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def _is_whole(path, checksum):
    """Whether a file's checksum is right: the stated one, else that of each member of a zip."""
    if checksum:
        return sha256_of(path) == checksum
    if path.suffix != ".zip":
        return path.stat().st_size > 0
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile and zlib raise many kinds on damaged archives
        return False


def _record(folder, name, digest):
    """Write a file's SHA-256 to SHA256SUMS; warn if an earlier download of the same name differed."""
    import warnings

    path = folder / RECORD
    lines = path.read_text().splitlines() if path.exists() else []
    sums = {line[66:]: line[:64] for line in lines if len(line) > 66}
    if sums.get(name, digest) != digest:
        warnings.warn(
            f"{folder / name}: differs from the file downloaded earlier (SHA-256 {sums[name][:12]}...)",
            stacklevel=3,
        )
    sums[name] = digest
    write_file(path, "".join(f"{value}  {key}\n" for key, value in sorted(sums.items())))
