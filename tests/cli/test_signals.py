"""SIGTERM ends a command even when Python loses the exception that it raises."""

import os
import signal
import weakref

import pytest
import typer

from nucleus_course.cli import common


class Thing:
    pass


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to oneself on Windows")
@pytest.mark.filterwarnings("ignore")
def test_a_lost_exception_is_raised_again(capsys):
    with common.ending_well():
        thing = Thing()
        watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del thing  # Python only reports what the callback raises
        assert watch() is None
        with pytest.raises(common.Terminated):
            common.raise_if_terminated()
    common.raise_if_terminated()  # it belonged to that command


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to oneself on Windows")
def test_what_a_library_makes_of_it_is_no_traceback(capsys):
    @common.friendly
    def command():
        """A command."""
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("a callback failed") from error

    with pytest.raises(typer.Exit) as stopped:
        command()
    assert stopped.value.exit_code == 143 and "terminated" in capsys.readouterr().err
