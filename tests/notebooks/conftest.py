"""Make ``notebooks/build.py`` and ``notebooks/conftest.py`` importable by the tests of the notebooks."""

import importlib.util
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def module_of(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def builder():
    return module_of(NOTEBOOKS / "build.py", "notebook_builder")


@pytest.fixture(scope="session")
def outputs():
    return module_of(NOTEBOOKS / "notebook_outputs.py", "notebook_outputs")


@pytest.fixture(scope="session")
def conftest_of_notebooks():
    return module_of(NOTEBOOKS / "conftest.py", "conftest_of_notebooks")
