"""Make ``notebooks/build.py`` importable by the tests of the notebooks."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def builder():
    spec = importlib.util.spec_from_file_location(
        "notebook_builder", ROOT / "notebooks" / "build.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
