"""The examples in the docstrings of the public functions run and print what they show."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import nucleus_course
from nucleus_course import evaluation, geometry

ROOMS = (evaluation, geometry)
MODULES = sorted(
    module.name
    for room in ROOMS
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
)
MODULES += [
    f"nucleus_course.{name}"
    for name in ("data.labels", "prediction.interchange", "prediction.measurements", "_util.text")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    names = {"np": np, "nc": nucleus_course}
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test.name
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert len(found) >= 20, found
