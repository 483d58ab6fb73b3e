"""Type checks for values from files that go into dataclasses."""

import typing


def fits(value, field):
    """Whether a value from a file has the type of a config's field; numbers must be finite."""
    kinds = typing.get_args(field.type) or (field.type,)
    if value is None:
        return type(None) in kinds
    if isinstance(value, dict):
        return dict in kinds and all(_is_number(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        likes = field.default if isinstance(field.default, tuple) else ()
        return tuple in kinds and all(not likes or _is_number(v) for v in value)
    if isinstance(value, (bool, str)):
        return type(value) in kinds
    whole = int in kinds and isinstance(value, int) and value >= 0
    return _is_number(value) and (float in kinds or whole)


def _is_number(value):
    return type(value) in (int, float) and abs(value) < 1e12


def kind_of_value(field):
    """The type of a config's field in words: "a number", "a list", …"""
    kinds = [k.__name__ for k in typing.get_args(field.type) or (field.type,)]
    names = {"float": "a number", "int": "a whole number", "str": "text", "tuple": "a list", "dict": "an object",
             "bool": "true or false", "NoneType": "null"}  # fmt: skip
    return " or ".join(names.get(kind, kind) for kind in kinds)


def shortened(value):
    """A value's repr, cut to 40 characters."""
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}..."
