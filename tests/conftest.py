"""What all tests share: the real data, the cache, and the command line run in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nucleus_course._util.memory import keep_freed

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Processes that run at the same time share the cores instead of competing for them.
    share = str(max(1, (os.cpu_count() or 1) // workers))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = share

ROOT = Path(__file__).resolve().parents[1]
keep_freed()  # as `train` does
# The cache of decoded data is inside the project; only that of the real images is kept for the next run.
CACHE = Path(
    os.environ.setdefault("NUCLEUS_COURSE_CACHE", str(ROOT / ".pytest_cache" / "nucleus_course"))
)


# Test files that take minutes start first, so that no process is still busy with one at the end.
LONG = (
    "notebooks/solutions/03_train_in_stages.ipynb", "test_demo.py", "test_backends.py", "test_distribute.py", "test_paper_presets.py",
    "test_cli_model.py", "test_time_limit.py", "test_fuzz.py", "test_resume.py", "test_kept.py", "notebooks/03_train_in_stages.ipynb",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.as_posix()
        return next((i for i, end in enumerate(LONG) if name.endswith(end)), len(LONG))

    items.sort(key=place)  # a stable sort keeps the order within a file


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput") or not CACHE.is_relative_to(ROOT):
        return  # other processes may still use it
    for file in CACHE.glob("*.zip"):
        if not file.name.startswith("stage1_train"):
            file.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def seeded():
    """Random weights are the same in every run of a test, whichever tests ran before."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(2018)


@pytest.fixture(scope="session")
def stage1_zip():
    """The real BBBC038 stage 1 training images; the test skips where there are none."""
    from nucleus_course.reports.doctor import find_bbbc038

    found = find_bbbc038()
    if found is None or not found.is_file():
        pytest.skip("no stage1_train.zip: run `nucleus-course download` or set NUCLEUS_COURSE_DATA")
    return found


@pytest.fixture(scope="session")
def shared_cache():
    """The cache that all tests and all runs share."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


@pytest.fixture
def command():
    """Run `nucleus-course ARGS` in a new process: CompletedProcess with text streams."""

    def run(*args, cwd=None, timeout=600, python=(), **env):
        words = [sys.executable, *python, "-m", "nucleus_course.cli", *map(str, args)]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "PYTHONPATH": paths, "NO_COLOR": "1", **env}
        return subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return run
