"""Which plane of a file with several is read: channels, focal planes, times. Every guess is reported."""

import re

import numpy as np

from nucleus_course._util.errors import UserError

# Names of nuclear stains, the most likely first.
STAINS = (
    r"dapi",
    r"hoechst|hoe?33\d\d\d|h?33342|h?33258",
    r"draq ?-?[57]",
    r"h2b|histone",
    r"nuc(lei|leus|lear|blue|spot|light)",
    r"sytox|syto\b|to-?pro|yoyo|propidium",
    r"ha?ematoxylin",
)
AXES = {"C": "channel", "Z": "plane", "T": "time"}


def stain_channel(names):
    """The number of the channel whose name is a nuclear stain's, or None.

    >>> stain_channel(["GFP", "DAPI"]), stain_channel(["red", "green"])
    (1, None)
    """
    for pattern in STAINS:
        for number, name in enumerate(names):
            if re.search(pattern, name, re.IGNORECASE):
                return number
    return None


def choose_planes(name, axes, shape, names, wanted):
    """Which part of an array to read.

    Args:
        name: the file, for errors.
        axes: one letter for each dimension, as in tifffile: Y, X, C channels, Z planes, T times,
            S samples of a colour; others are unnamed sequences.
        shape: the sizes.
        names: the channels' names; may be empty.
        wanted: {"channel": number or name, "plane": number, "max" or "focus", "time": number}.

    Returns:
        ({axis: number, or slice(None) for all planes of a projection}, notes), for all axes but Y, X, S.

    Raises:
        UserError: a choice that is missing, or that the file does not offer.
    """
    sizes, notes, index = dict(zip(axes, shape)), [], {}
    several = {axis: size for axis, size in sizes.items() if axis not in "YXS" and size > 1}
    unnamed = [axis for axis in several if axis not in AXES]
    options = {AXES[axis]: axis for axis in several if axis in AXES}
    if len(unnamed) > 1:
        listed = " and ".join(str(several[axis]) for axis in unnamed)
        raise UserError(
            f"{name}: {len(unnamed)} axes of unknown meaning, of {listed} pages: "
            "name its axes (OME-TIFF, ImageJ TIFF, OME-Zarr), or save a plane as a file of its own"
        )
    for option, value in wanted.items():
        if value is not None and option not in options:
            free = unnamed and unnamed[0] not in options.values()
            if free and option in AXES.values():
                options[option] = unnamed[0]
            elif value not in (0, "0", "max", "focus") and not _is_name(value, names):
                raise UserError(f"{name}: {option} {value!r}: this file has only one {option}")
    for option, axis in options.items():
        value, size = wanted.get(option), several[axis]
        if option == "channel" and value is None:
            value = stain_channel(names)
            if value is not None:
                notes.append(
                    f"{name}: channel {value} ({names[value]}) of {', '.join(names)} is read; "
                    "choose another with channel"
                )
        if value is not None:
            index[axis] = _position(name, option, value, size, names)
    missing = [axis for axis in several if axis not in index]
    if missing:
        raise UserError(f"{name}: {_what_there_is(missing, several, names)}")
    return {axis: index.get(axis, 0) for axis in axes if axis not in "YXS"}, notes


def _is_name(value, names):
    return any(str(value).casefold() == known.casefold() for known in names)


def _position(name, option, value, size, names):
    """A number from 0, or slice(None) for the projections of planes."""
    text = str(value).strip()
    if option == "plane" and text in ("max", "focus"):
        return slice(None)
    if option == "channel" and not text.lstrip("-").isdigit():
        found = [i for i, known in enumerate(names) if known.casefold() == text.casefold()]
        if not found:
            found = [i for i, known in enumerate(names) if text.casefold() in known.casefold()]
        if len(found) == 1:
            return found[0]
        has = ", ".join(names) if names else f"no names; choose 0 to {size - 1}"
        raise UserError(f"{name}: channel {text!r}: the channels are {has}")
    return choose_number(name, option, text, size)


def choose_number(name, option, value, count):
    """``value`` as a number from 0 to ``count`` - 1; 0 for None.

    Raises:
        UserError: naming the file and the option.
    """
    text = str(value or 0)
    if not text.isdecimal() or int(text) >= count:
        projections = ", max or focus" if option == "plane" else ""
        raise UserError(f"{name}: {option} {text}: choose 0 to {count - 1}{projections}")
    return int(text)


def _what_there_is(missing, sizes, names):
    """The message if the user has to choose."""
    parts, options = [], []
    for axis in missing:
        option = AXES.get(axis)
        text = f"{sizes[axis]} {option}s" if option else f"{sizes[axis]} pages of unknown meaning"
        if axis == "C" and names:
            text += f" ({', '.join(names)})"
        parts.append(text)
        options.append(f"{option or 'channel, plane or time'} 0 to {sizes[axis] - 1}")
    hint = " (planes: max or focus, too)" if "Z" in missing else ""
    return f"it holds {' and '.join(parts)}: choose {' and '.join(options)}{hint}"


def arrange(values, axes, how):
    """An array with rows, columns and colours last, in this order; a further axis is projected."""
    order = [axis for axis in axes if axis not in "YXS"] + [a for a in "YXS" if a in axes]
    values = values.transpose([axes.index(axis) for axis in order])
    return values if order[0] in "YXS" else project(values, str(how))


def project(stack, how):
    """One plane (H, W[, C]) of a stack (Z, H, W[, C]): the maximum, or the sharpest plane."""
    if how == "max":
        return stack.max(axis=0)
    import cv2

    sharpness = [
        cv2.Laplacian(np.float32(plane if plane.ndim == 2 else plane[..., 0]), cv2.CV_32F).var()
        for plane in stack
    ]
    return stack[int(np.argmax(sharpness))]
