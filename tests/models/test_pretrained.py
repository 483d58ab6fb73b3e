"""Fetching published weights, from a server on this machine."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from terminal import one_line_error, run

from nucleus_course._util.errors import UserError
from nucleus_course.models.weights import pretrained

CONTENT = b"weights " * 1000
NOWHERE = pretrained.Download("http://127.0.0.1:9/x.h5", "0" * 32)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Offers file.h5; ``server(md5)`` makes it the COCO weights for ResNet-50."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "file.h5").write_bytes(CONTENT)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def offer(md5, name="file.h5"):
        file = pretrained.Download(f"http://127.0.0.1:{http.server_port}/{name}", md5)
        monkeypatch.setitem(pretrained.DOWNLOADS, ("coco", "resnet50"), file)

    yield offer
    http.shutdown()
    http.server_close()


def test_fetched_once_then_from_the_cache(server, tmp_path, monkeypatch):
    server(hashlib.md5(CONTENT).hexdigest())
    path = pretrained.fetch("coco", "resnet50", tmp_path / "cache")
    assert path == tmp_path / "cache" / "weights" / "file.h5" and path.read_bytes() == CONTENT
    closed = pretrained.Download("http://127.0.0.1:9/file.h5", hashlib.md5(CONTENT).hexdigest())
    monkeypatch.setitem(pretrained.DOWNLOADS, ("coco", "resnet50"), closed)
    assert pretrained.fetch("coco", "resnet50", tmp_path / "cache") == path  # offline now


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server("0" * 32)
    message = "file.h5 has another checksum than 0{32}: try again, or download"
    with pytest.raises(UserError, match=message):
        pretrained.fetch("coco", "resnet50", tmp_path)
    assert not list((tmp_path / "weights").glob("[!.]*"))


def test_a_damaged_copy_in_the_cache_is_fetched_again(server, tmp_path):
    server(hashlib.md5(CONTENT).hexdigest())
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file.h5").write_bytes(b"half")
    assert pretrained.fetch("coco", "resnet50", tmp_path).read_bytes() == CONTENT


def test_missing_on_the_server_and_no_server(server, tmp_path, monkeypatch):
    server("0" * 32, "gone.h5")
    with pytest.raises(UserError, match=r"coco weights cannot be downloaded \(HTTPError"):
        pretrained.fetch("coco", "resnet50", tmp_path)
    monkeypatch.setitem(pretrained.DOWNLOADS, ("coco", "resnet50"), NOWHERE)
    message = r"is there a network\?\): download http://127.0.0.1:9/x.h5 by other means"
    with pytest.raises(UserError, match=message):
        pretrained.fetch("coco", "resnet50", tmp_path)


def test_train_offline_is_one_line_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("NUCLEUS_COURSE_CACHE", str(tmp_path))
    monkeypatch.setitem(pretrained.DOWNLOADS, ("coco", "resnet101"), NOWHERE)
    words = f"train --data sample --run {tmp_path / 'run'}"
    done = run(words, "--preset paper-resnet101 --weights coco")
    one_line_error(done, "coco weights cannot be downloaded", "give the file as --weights FILE")
    assert len(done.output.strip().splitlines()) == 1
    one_line_error(run(words, "--weights imagenet"), "preset compact has another trunk")
    assert not (tmp_path / "run").exists()


def test_the_published_checksums():
    assert pretrained.DOWNLOADS["imagenet", "resnet50"].md5 == "4d473c1dd8becc155b73f8504c6f6626"
    assert pretrained.DOWNLOADS["imagenet", "resnet101"].md5 == "88cf7a10940856eca736dc7b7e228a21"
    assert pretrained.DOWNLOADS["coco", "resnet101"] == pretrained.DOWNLOADS["coco", "resnet50"]
    with pytest.raises(UserError, match="no coco weights exist for thin"):
        pretrained.fetch("coco", "thin")
