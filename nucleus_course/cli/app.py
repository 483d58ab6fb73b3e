"""The command line, `nucleus-course`: the subcommands in the order in which a newcomer needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from nucleus_course import __version__
from nucleus_course.cli import (
    baseline,
    data,
    evaluate,
    export,
    grade,
    main_job,
    merge,
    novelty,
    predict,
    reproduce,
    rescore,
    thresholds,
    train,
)

app = typer.Typer(
    name="nucleus-course",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug report needs the plain traceback
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"nucleus-course {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Mask R-CNN for nucleus segmentation: train it, score it, use it on your images.

    New here? `nucleus-course doctor` checks this machine; `nucleus-course demo` shows everything once.
    Each command has its own help, such as `nucleus-course train --help`.
    """


app.command()(main_job.demo)
app.command()(main_job.doctor)
app.command()(data.download)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(merge.merge)
app.command()(rescore.rescore)
app.command()(novelty.novelty)
app.command()(thresholds.thresholds)
app.command()(baseline.baseline)
app.command()(reproduce.reproduce)
app.command()(export.export)
app.command()(grade.grade)
app.command()(main_job.benchmark)
