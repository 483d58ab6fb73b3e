"""A long cell shows that it is working; a short one prints nothing."""

import time

import nbformat

from nucleus_course.course.waiting import Ticker


def test_a_long_wait_is_said_and_a_short_one_is_not():
    said = []
    ticker = Ticker(said.append, patience=0.1, every=0.02)
    ticker.begin()
    ticker.end()
    assert said == []
    ticker.begin()
    ticker.what = "3 of 67 images"
    time.sleep(0.3)
    ticker.end()
    assert said.count("working, 0 s: 3 of 67 images") > 1 and said[-1] == "done, 0 s"
    lines = len(said)
    time.sleep(0.1)
    assert len(said) == lines, "nothing is said after the end"


def test_in_a_notebook_a_cell_over_five_seconds_says_so(monkeypatch):
    """The cell that sets it up and a later one, with a limit of half a second instead of five."""
    from nbclient import NotebookClient

    monkeypatch.delenv("NUCLEUS_COURSE_WAITING", raising=False)
    cells = [
        "import time\nfrom nucleus_course import course\nfrom nucleus_course.course import waiting\n"
        "waiting.Ticker.__init__.__defaults__ = (0.5, 0.1)\n"
        "course.find_data(verbose=False)\ntime.sleep(1)",
        "time.sleep(0.1)",
        "time.sleep(1)\nprint('below')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    first, short, last = (cell.outputs for cell in notebook.cells)
    assert [o.data["text/plain"] for o in first] == ["done, 1 s"]
    assert short == []
    assert last[0].data["text/plain"] == "done, 1 s" and last[1].text == "below\n", "it stays above"
