"""A long cell says that it is working; a short one says nothing."""

import time

import nbformat

from nucleus_course.course.waiting import Ticker


def test_a_long_wait_is_said_and_a_short_one_is_not(capsys):
    ticker = Ticker(patience=0.1, every=0.02)
    ticker.begin()
    ticker.end()
    assert capsys.readouterr().err == ""
    ticker.begin()
    ticker.what = "3 of 67 images"
    time.sleep(0.3)
    ticker.end()
    said = capsys.readouterr().err
    assert said.count("working, 0 s: 3 of 67 images") > 1 and said.rstrip(" ").endswith("\n")
    assert "done, 0 s" in said.split("\r")[-1], "the last line replaces the others"
    time.sleep(0.1)
    assert capsys.readouterr().err == "", "nothing is written after the end"


def test_in_a_notebook_a_cell_over_five_seconds_says_so(monkeypatch):
    """The cell that sets it up, and a later one; with a patience of half a second instead of five."""
    from nbclient import NotebookClient

    monkeypatch.delenv("NUCLEUS_COURSE_WAITING", raising=False)
    cells = [
        "import time\nfrom nucleus_course import course\nfrom nucleus_course.course import waiting\n"
        "waiting.Ticker.__init__.__defaults__ = (0.5, 0.1)\n"
        "course.find_data(verbose=False)\ntime.sleep(1)",
        "time.sleep(0.1)",
        "time.sleep(1)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    def told(cell):
        return "".join(o.get("text", "") for o in cell.outputs if o.get("name") == "stderr")

    first, short, last = map(told, notebook.cells)
    assert "working" in first and "done, 1 s" in last and short == ""
