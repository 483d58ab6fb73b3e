"""Checks of the command line's output."""

import csv
import re

from typer.testing import CliRunner

from nucleus_course.cli.app import app


def run(*words):
    """Run a command and return its result; a text may hold several words, separated by spaces."""
    parts = [word.split() if isinstance(word, str) else [str(word)] for word in words]
    return CliRunner().invoke(app, sum(parts, []))


def table(path):
    """The rows of a CSV file as dicts."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def one_line_error(result, *words, code=2):
    """Check a failed command: its exit code, and one line `error: …` with the words on standard error."""
    stderr = plain(result.stderr)
    assert (result.exit_code if hasattr(result, "exit_code") else result.returncode) == code, (
        result.stdout + stderr
    )
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in lines[0], lines[0]
