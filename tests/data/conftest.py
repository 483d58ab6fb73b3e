"""Every test of the data room has a cache of its own; the real data share one between runs."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUCLEUS_COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def stage1(stage1_zip):
    """All 664 real images; decoded once into .cache/ of the checkout, which git ignores."""
    from nucleus_course.data import load_dataset

    return load_dataset(stage1_zip, cache_dir=Path(__file__).parents[2] / ".cache", progress=False)
