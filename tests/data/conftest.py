"""Every test of the data room has its own cache; the real data share one between runs."""

import pytest
from filelock import FileLock


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUCLEUS_COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def stage1(stage1_zip, shared_cache):
    """All 664 real images, decoded once for all test processes."""
    from nucleus_course.data import load_dataset

    with FileLock(shared_cache / "stage1.lock"):
        return load_dataset(stage1_zip, cache_dir=shared_cache, progress=False)
