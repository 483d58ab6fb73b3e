"""Downloading, against a web server on this machine."""

import functools
import hashlib
import http.server
import io
import socket
import threading
import zipfile

import numpy as np
import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.data.download import RECORD, ResumingDownloader, download_bbbc038


def make_zip(seed=0):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a/images/a.png", np.random.default_rng(seed).bytes(200_000))
    return data.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content`` with ranges and ETags; ``server.cut`` ends answers early."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        body = server.content.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        etag, start = f'"{hashlib.md5(body).hexdigest()}"', 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body[start : start + server.cut] if server.cut else body[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content = {"stage1_train.zip": make_zip()}
        server.requests, server.cut, server.ranges = [], 0, True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


@pytest.fixture
def fetch(server, tmp_path):
    return functools.partial(
        download_bbbc038, tmp_path, ["stage1_train.zip"], base_url=server.url, progress=False
    )


def test_download_records_what_came(server, fetch, tmp_path):
    (path,) = fetch()
    body = server.content["stage1_train.zip"]
    assert path == tmp_path / "stage1_train.zip" and path.read_bytes() == body
    assert (
        tmp_path / RECORD
    ).read_text() == f"{hashlib.sha256(body).hexdigest()}  stage1_train.zip\n"
    seen = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert sorted(seen) == [RECORD, "stage1_train.zip"]
    fetch()
    assert len(server.requests) == 1, "a whole file is not fetched again"


def test_resume_after_a_break(server, fetch, tmp_path):
    server.cut = 70_000
    with pytest.raises(UserError, match="run the command again"):
        fetch()
    kept = (tmp_path / "stage1_train.zip.partial").stat().st_size
    assert 0 < kept <= 70_000
    assert not (tmp_path / "stage1_train.zip").exists()
    server.cut = 0
    (path,) = fetch()
    assert server.requests == [None, f"bytes={kept}-"]
    assert path.read_bytes() == server.content["stage1_train.zip"]


def test_a_changed_file_is_not_resumed(server, fetch):
    server.cut = 70_000
    with pytest.raises(UserError):
        fetch()
    server.cut = 0
    server.content["stage1_train.zip"] = make_zip(seed=1)
    (path,) = fetch()
    assert path.read_bytes() == server.content["stage1_train.zip"]


def test_a_server_without_ranges(server, fetch):
    server.cut, server.ranges = 70_000, False
    with pytest.raises(UserError):
        fetch()
    server.cut = 0
    assert fetch()[0].read_bytes() == server.content["stage1_train.zip"]


def test_a_partial_file_that_is_already_complete(server, fetch, tmp_path):
    body = server.content["stage1_train.zip"]
    (tmp_path / "stage1_train.zip.partial").write_bytes(body)
    notes = f'{{"url": "{server.url}/stage1_train.zip", "validator": "\\"{hashlib.md5(body).hexdigest()}\\""}}'
    (tmp_path / "stage1_train.zip.partial.json").write_text(notes)
    assert fetch()[0].read_bytes() == body


def test_corrupt_content_is_refused_and_removed(server, fetch, tmp_path):
    body = bytearray(server.content["stage1_train.zip"])
    body[100_000] ^= 1
    server.content["stage1_train.zip"] = bytes(body)
    with pytest.raises(UserError, match="stage1_train.zip.*damaged"):
        fetch()
    assert not (tmp_path / "stage1_train.zip").exists()


def test_checksum(server, fetch, tmp_path):
    good = hashlib.sha256(server.content["stage1_train.zip"]).hexdigest()
    with pytest.raises(UserError, match="damaged.*SHA-256"):
        fetch(checksums={"stage1_train.zip": "0" * 64})
    assert not (tmp_path / "stage1_train.zip").exists()
    assert fetch(checksums={"stage1_train.zip": good})


def test_a_damaged_file_on_disk_is_fetched_again(server, fetch, tmp_path):
    (tmp_path / "stage1_train.zip").write_bytes(b"half a file")
    assert fetch()[0].read_bytes() == server.content["stage1_train.zip"]


def test_a_new_edition_warns(server, fetch, tmp_path):
    fetch()
    (tmp_path / "stage1_train.zip").unlink()
    server.content["stage1_train.zip"] = make_zip(seed=1)
    with pytest.warns(UserWarning, match="differs"):
        fetch()


def test_missing_on_the_server(server, tmp_path):
    with pytest.raises(UserError, match="nothing.zip: the server answered 404"):
        download_bbbc038(tmp_path, ["nothing.zip"], base_url=server.url, progress=False)


def test_offline(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="cannot be reached.*sample") as caught:
        download_bbbc038(tmp_path, base_url=f"http://127.0.0.1:{port}", progress=False)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make this folder"):
        download_bbbc038(tmp_path / "file" / "folder", progress=False)


def test_full_disk(server, fetch, monkeypatch):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ResumingDownloader, "_receive", full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch()


def test_two_downloads_of_one_file_do_not_mix(server, fetch, tmp_path):
    import filelock

    lock = tmp_path / ".stage1_train.zip.lock"
    with filelock.FileLock(lock):
        with pytest.raises(UserError, match="stage1_train.zip: another process"):
            fetch()
    assert not server.requests
    before = lock.stat().st_ino
    assert (
        fetch()[0].exists() and lock.stat().st_ino == before
    )  # the waiting process has the same file open
