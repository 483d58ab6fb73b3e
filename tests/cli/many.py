"""Helpers for the tests of `predict` over many images."""

import os
import subprocess
import sys
import time
from pathlib import Path

import terminal
from terminal import table

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def run(*words):
    return terminal.run("predict", *words)


def merge(*words):
    return terminal.run("merge", *words)


def contents(out):
    """Every file of a results folder except the locks; no temporary file may be among them."""
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    assert not [name for name in files if ".partial" in name]
    return {name: p.read_bytes() for name, p in files.items() if not name.endswith(".lock")}


def rows(out, name="counts.csv"):
    return table(out / name)


def start(*words, **env):
    """Start `predict` with the stub in another process."""
    code = "import cli.stub; cli.stub.main()"
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200", **env}
    words = [sys.executable, "-c", code, "predict", *map(str, words)]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_rows(out, count, process):
    """Wait until ``count`` images are done."""
    while len(list((out / "rows").glob("image*.json"))) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
