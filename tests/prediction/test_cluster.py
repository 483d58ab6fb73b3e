"""Images as Dask tasks: the same files as from one process, even when a worker is killed on the way."""

import contextlib
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from cli.stub import COUNT, Stub, write_squares
from components import slide_model
from typer.testing import CliRunner

from nucleus_course._util.errors import UserError
from nucleus_course.cli.app import app
from nucleus_course.data import slides
from nucleus_course.prediction import cluster
from nucleus_course.prediction.cluster import predict_many
from nucleus_course.prediction.image_files import find_images
from nucleus_course.prediction.many import Recipe
from nucleus_course.prediction.results import ResultsFolder

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("images"))


@contextlib.contextmanager
def workers(count, threads=1, **options):
    """A client of a cluster on this machine."""
    options |= {"threads_per_worker": threads, "dashboard_address": None}
    with distributed.LocalCluster(count, **options) as cluster, distributed.Client(cluster) as one:
        yield one


def contents(out):
    """{relative path: bytes} of a results folder, except locks and files that killed processes left behind."""
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    return {n: p.read_bytes() for n, p in files.items() if ".lock" not in n and ".partial" not in n}


def test_one_process_names_what_fails_and_resumes(images, tmp_path, capsys):
    mine = tmp_path / "in"
    mine.mkdir()
    for name in ("image00.png", "image03.png"):
        (mine / name).write_bytes((images / name).read_bytes())
    (mine / "cut.png").write_bytes((images / "image00.png").read_bytes()[:50])
    found = predict_many(mine, tmp_path / "out", weights=Stub, progress=False)
    assert (found.images, found.nuclei) == (2, 5)
    assert "skipped" in capsys.readouterr().err
    again = predict_many([mine], tmp_path / "out", weights=Stub, resume=True, progress=False)
    assert again.counts == found.counts
    with pytest.raises(UserError, match="none of the 1 images"):
        predict_many(mine / "cut.png", tmp_path / "other", weights=Stub, progress=False)


def test_tasks_in_threads_of_this_process(images, tmp_path):
    """A quick test of the client's side, without processes for the workers."""
    predict_many(images, tmp_path / "straight", weights=Stub, progress=False)
    with workers(1, threads=2, processes=False) as client:
        predict_many(images, tmp_path / "out", weights=Stub, client=client, progress=False)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_no_scheduler_is_one_line(images, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", "0.2s")
    words = ["predict", str(images), "--out", str(tmp_path), "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "tcp://127.0.0.1:9: no scheduler" in result.stderr


def test_workers_that_die_of_the_model_or_of_an_image_are_one_line(tmp_path, capsys):
    from distributed.scheduler import KilledWorker

    class Future:
        status, key = "error", ""

        def result(self):
            raise KilledWorker("nuclei-begin", None, 3)

    client = SimpleNamespace(
        scheduler_info=lambda: {"workers": {}}, submit=lambda *a, **k: Future()
    )
    with pytest.raises(UserError, match="loading compact: every worker .* --memory-limit"):
        cluster.begin(client, Recipe(str(tmp_path)))
    assert "no worker yet" in capsys.readouterr().err
    assert "slide.tif: every worker" in cluster._reason(KilledWorker("a", None, 3), "slide.tif")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL here")
def test_a_worker_killed_in_the_middle_changes_nothing(images, tmp_path, monkeypatch):
    straight, out = tmp_path / "straight", tmp_path / "out"
    predict_many(images, straight, weights=Stub, progress=False)
    monkeypatch.setenv("PAUSE", "0.2")  # for the workers
    with workers(2) as client:
        recipe = Recipe(str(out), "Stub", load=Stub, how={"diameter": "auto"})
        outcomes = cluster.run(recipe, find_images([images]), client, False)
        done = [next(outcomes)]
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        done += list(outcomes)
        assert victim not in client.run(os.getpid).values()
    assert len(done) == COUNT and not [outcome.error for _, outcome in done if outcome.error]
    ResultsFolder(out, None).write_tables()
    assert contents(out) == contents(straight)


@pytest.mark.slow
def test_bands_of_a_slide_are_tasks_too(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGE", slides.LARGE)  # slide_model changes it
    picture = np.full((400, 350), 100, "uint16")
    for top in range(10, 380, 40):
        for left in range(20, 320, 30):
            picture[top : top + 20, left : left + 15] = 3000
    tifffile.imwrite(tmp_path / "slide.tif", picture, tile=(128, 128))
    options = {"tile": 192, "overlap": 64, "weights": slide_model, "progress": False}
    whole = predict_many(tmp_path / "slide.tif", tmp_path / "whole", **options)
    assert whole.nuclei == 100
    with workers(2) as client:
        predict_many(tmp_path / "slide.tif", tmp_path / "tiled", client=client, **options)
    assert contents(tmp_path / "tiled") == contents(tmp_path / "whole")
