"""Shared by the subcommands: consoles, options, one-line errors."""

from __future__ import annotations

import functools
import inspect
import re
import signal
import typing
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.backend import explain

SPLIT_HELP = "train, validation, all, test, matterport-…, grouped-…, source-1-… to source-4-… (-train or -validation), or a file with one image id per line."
# Options of several commands, in the format of the Args in a command's docstring.
SHARED = """
    data (DATA): A zip or a folder in BBBC038's layout or with other annotations, an annotation file, or 'sample'
        for the embedded synthetic images.
    annotations (FORMAT): masks, labels, imagej, qupath, coco, labelme or via; coco:NAME,… also names the
        categories that are nuclei. Default: recognised by content.
    allow_empty: Take images without annotation as images without nuclei. By default they are left out or refused.
    strict: Stop at the first faulty image instead of leaving it out.
    limit (N): Use only the first N images of the split.
    channel (N|NAME): The channel to read: its number from 0, or its name. Default: the one named after a nuclear stain.
    plane (N|max|focus): The focal plane: its number from 0, max (largest values) or focus (the sharpest).
    time (N): The time point to read, from 0.
    series (N): The series (picture) of a TIFF, from 0.
    level (N): The level of a pyramid; 0 is the largest.
    flips (N): How many of an image's four flips to use, 1 to 4. Default: as stored with the weights.
    preset (P): The preset of a weights file that has no config.json beside it. Names and folders need none.
    dtype (D): float32 or mixed_bfloat16. Default: predict uses the latter where the machine computes in it, because it
        is faster; evaluate uses float32, so that numbers do not depend on the processor.
    backend (NAME): tensorflow, jax or torch. Default: KERAS_BACKEND, or Keras's own configuration file.
"""
# The options that choose what to read from a file, as one parameter ``reading``: a dict of them.
Reading = Any
READING = {"channel": str, "plane": str, "time": int, "series": int, "level": int}
Limit = Annotated[int | None, typer.Option(min=1)]
Flips = Annotated[int | None, typer.Option(min=1, max=4)]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1)]


def out() -> Console:
    """Standard output, for results. A new object each time, so that redirection in tests works."""
    return Console(highlight=False)


def err() -> Console:
    """Standard error, for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """Print a note, which is not an error, on standard error."""
    err().print(Text(message, style="dim"), soft_wrap=True)


def note_renamed(stems: list[str], folder: Path) -> None:
    """Name the images whose results have another name than their files."""
    if stems:
        names = ", ".join(stems[:2]) + (", …" if len(stems) > 2 else "")
        note(
            f"{pluralize(len(stems), 'image')} renamed in the results, because {folder} holds other images "
            f"of the same names: {names}"
        )


def say(message: object) -> None:
    """Print a line of results on standard output."""
    out().print(Text(str(message)), soft_wrap=True)


def written(*paths: object) -> None:
    """Print the names of the files written by a command."""
    say("written: " + ", ".join(map(str, paths)))


def fail(message: str, code: int) -> NoReturn:
    """Print `error: message` on one line of standard error, red on a terminal, and exit with ``code``."""
    line = " ".join(str(message).split())
    err().print(Text(f"error: {line}", style="bold red"), soft_wrap=True)
    raise typer.Exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill a process; handled like Ctrl-C."""


_state = {"terminated": False}


def raise_if_terminated() -> None:
    """Raise :class:`Terminated` again after SIGTERM: Python ignores exceptions raised in a destructor."""
    if _state["terminated"]:
        raise Terminated


@contextmanager
def ending_well():
    """Raise :class:`Terminated` on SIGTERM inside; yields a dict whose ``terminated`` says whether it came.

    A training handles the exception and returns normally, so the flag decides the exit code.
    """
    _state["terminated"] = False

    def terminate(number, frame):
        _state["terminated"] = True
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not in the main thread
        yield _state
        return
    try:
        yield _state
    finally:
        signal.signal(signal.SIGTERM, before)
        _state["terminated"] = False


@contextmanager
def one_line_warnings():
    """Print warnings for users as one line on standard error, without file name and code."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message, category, *place, **more):
            if category is UserWarning:
                note(f"warning: {message}")
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


def friendly(command):
    """Decorator of every subcommand: errors that a user can correct become one line; bugs keep their traceback.

    The command's options are its parameters, with the help text of its docstring's Args or of :data:`SHARED`.
    Exit codes: 2 for a :class:`UserError`, a missing package, a full disk or missing file permissions; 130 for
    Ctrl-C; 143 for SIGTERM.
    """

    @functools.wraps(command)
    def run(*args, **kwargs):
        if "reading" in signature.parameters:
            kwargs["reading"] = {name: kwargs.pop(name) for name in READING}
        with ending_well() as state, one_line_warnings():
            try:
                return command(*args, **kwargs)
            except UserError as error:
                fail(str(error), error.exit_code)
            except KeyboardInterrupt:
                fail(*(("terminated", 143) if state["terminated"] else ("interrupted", 130)))
            except BrokenPipeError:
                raise  # `nucleus-course … | head` is not an error; click exits quietly
            except Exception as error:
                if state["terminated"]:  # a library turned SIGTERM's exception into its own
                    fail("terminated", 143)
                known = isinstance(error, ImportError | OSError | MemoryError)
                message = explain(error) if known else None
                if message is None:
                    raise
                fail(message, 2)

    about, _, entries = inspect.cleandoc(command.__doc__ or "").partition("\n\nArgs:\n")
    run.__doc__ = flowing(about)
    signature = inspect.signature(command)
    hints: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        # Python 3.10 puts Optional around a hint whose default is None, which hides its help from typer.
        parts = typing.get_args(hint)
        hint = next((part for part in parts if hasattr(part, "__metadata__")), hint)
        hints |= {n: k | None for n, k in READING.items()} if name == "reading" else {name: hint}
    for name, metavar, text in ENTRY.findall(SHARED + entries):  # a command's own come last
        if name in hints:
            hints[name] = _parameter(name, hints[name], metavar, " ".join(text.split()))
    own = []
    for name, parameter in signature.parameters.items():
        names = READING if name == "reading" else (name,)
        own += [parameter.replace(name=n, annotation=hints[n]) for n in names]
    run.__annotations__ = hints
    vars(run)["__signature__"] = signature.replace(parameters=own)
    return run


# An entry of a docstring's Args: `name (METAVAR): help`, with further lines indented.
ENTRY = re.compile(r"^    (\w+)(?: \((.*?)\))?: (.*(?:\n {8}.*)*)", re.M)


def _parameter(name: str, hint: Any, metavar: str, text: str) -> Any:
    """A parameter's annotation for typer, with the docstring's help; a bool is a flag without a --no-… option."""
    kind, *given = typing.get_args(hint) if hasattr(hint, "__metadata__") else [hint]
    flag = [f"--{name.replace('_', '-')}"] if kind is bool else []
    info = given[0] if given else typer.Option(*flag)
    info.help, info.metavar = text, metavar or None
    return Annotated[kind, info]


def flowing(text: str) -> str:
    """A help text with one line per paragraph, to fill any terminal; blocks after \\b are not changed."""
    return "\n\n".join(p if p.startswith("\b") else " ".join(p.split()) for p in text.split("\n\n"))


def open_data(
    data: str,
    split: str,
    limit: int | None = None,
    strict: bool = False,
    what: str = "data",
    allow_empty: bool = False,
    annotations: str = "auto",
    reading: dict | None = None,
):
    """The data set of a command; a line on standard error counts the issues found by the lint."""
    from nucleus_course.data import load_dataset

    how = {"strict": strict, "allow_empty": allow_empty, "annotations": annotations}
    dataset = load_dataset(data, split, **how, **(reading or {}))
    images = pluralize(len(dataset), "synthetic image" if dataset.synthetic else "image")
    if limit is not None and limit < len(dataset):
        dataset = dataset.subset(dataset.ids[:limit])
        images = f"the first {limit} of {images} (--limit)"
    note(f"{what}: {dataset.source}, split {split}: {images}")
    issues = len(dataset.lint.issues)
    if issues:
        advice = f"`nucleus-course doctor --data {data}` lists them"
        note(
            f"{what}: {pluralize(issues, 'irregularity', 'irregularities')}, repaired or left out; {advice}"
        )
    return dataset


def output_folder(path: Path) -> Path:
    """Create the folder that a command writes to.

    Raises:
        UserError: the path is a file.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path} is a file: name a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def output_file(path: Path, example: str) -> Path:
    """The file that a command writes, checked before anything is computed.

    Raises:
        UserError: the path is a folder; ``example`` is a name for a file in it.
    """
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name a file in it, such as {path / example}")
    return path


DTYPES = ("float32", "mixed_bfloat16")


def check_dtype(dtype: str | None):
    """Raise a UserError for an unknown ``--dtype``; None is each command's default."""
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown --dtype '{dtype}': choose {' or '.join(DTYPES)}")


def model_folder(weights: str, file: str) -> Path:
    """The model folder behind ``weights``, for a command that writes ``file`` into it.

    Raises:
        UserError: not found, or a weights file.
    """
    from nucleus_course.models.weights.folder import find_weights

    folder = find_weights(weights)
    if folder.is_file():
        raise UserError(
            f"{weights} is a file: {file} belongs in a model folder, so give the folder"
        )
    return folder


def open_model(weights: str, preset: str | None = None, dtype: str | None = None):
    """The model of a shipped name, a model or run folder, or a weights file.

    For a file, the config.json beside it, or ``preset``, says which network it is for.

    Raises:
        UserError: not found, of another architecture, or an unknown ``dtype``.
    """
    dtype = dtype or DTYPES[0]
    check_dtype(dtype)
    from nucleus_course.prediction.segmenter import open_model

    return open_model(weights, preset, dtype)
