"""One notebook compared output by output, but for cells that depend on the machine or its data."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_start_here_gives_its_stored_outputs():
    pytest.importorskip("nbval")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbval",
            "--nbval-current-env",
            "--nbval-cell-timeout=600",
            "-q",
            "-p",
            "no:cacheprovider",
            str(ROOT / "notebooks" / "solutions" / "00_start_here.ipynb"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
