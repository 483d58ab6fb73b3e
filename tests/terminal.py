"""What the tests of the command line say of its output."""

import re


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def one_line_error(result, *words, code=2):
    """The result of a command: exit code, and standard error with exactly one line `error: …` with the words."""
    stderr = plain(result.stderr)
    assert (result.exit_code if hasattr(result, "exit_code") else result.returncode) == code, (
        result.stdout + stderr
    )
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in lines[0], lines[0]
