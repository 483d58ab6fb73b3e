"""The command line. :mod:`nucleus_course.cli.app` puts the subcommands together, one module each.

Module tops import only what parsing arguments needs. Everything heavy is imported inside a command, so
that `--help` and a mistyped argument answer at once.
"""


def main() -> None:
    """Entry point of the console script."""
    from nucleus_course.cli.app import app

    app(prog_name="nucleus-course")
