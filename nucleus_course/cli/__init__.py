"""The command line. :mod:`nucleus_course.cli.app` combines the subcommands, one module each.

Modules import at the top only what parsing arguments needs, and everything heavy inside a command, so that
`--help` and errors in arguments appear at once.
"""


def main() -> None:
    """Entry point of the console script."""
    from nucleus_course.cli.app import app

    app(prog_name="nucleus-course")
