"""Fixtures for the tests of `predict` over many images with a detector that needs no network."""

import pytest
from cli.many import contents, run
from cli.stub import install, write_squares


@pytest.fixture
def stub(monkeypatch):
    return install(monkeypatch.setattr)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def straight(images, tmp_path_factory):
    """The results of one process without a fault, as {relative path: bytes}."""
    out = tmp_path_factory.mktemp("straight") / "out"
    with pytest.MonkeyPatch.context() as patch:
        install(patch.setattr)
        assert run(images, "--out", out).exit_code == 0
    return contents(out)
