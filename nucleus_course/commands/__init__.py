"""The subcommands of `nucleus-course`, one module a group; `nucleus_course.cli` puts them together.

Module tops import only what parsing arguments needs: everything heavy is imported inside a command, so
that `--help` and a mistyped argument answer at once.
"""
