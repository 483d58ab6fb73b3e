"""Names of a package that are loaded on first use, so that importing the package is quick."""

import sys
from importlib import import_module


def lazy(package, homes):
    """The module functions ``__getattr__`` and ``__dir__`` (PEP 562) of a package.

    Args:
        package: the package's ``__name__``.
        homes: {name: module of the package that defines it}.
    """

    def find(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next access does not call this
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})
