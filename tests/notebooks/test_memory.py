"""Every notebook fits into a small machine: the peak of its kernel, run as on Binder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.5  # GiB of resident memory, of the kernel and of any process that it starts

pytestmark = pytest.mark.slow


@pytest.fixture
def as_on_binder(monkeypatch):
    """The thread caps of binder/start, and this checkout's package."""
    text = (ROOT / "binder" / "start").read_text(encoding="utf-8")
    caps = dict(re.findall(r'export (\w+)="\$\{\w+:-([^}]*)\}"', text))
    assert {"OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MALLOC_ARENA_MAX"} <= set(caps)
    for name, value in {**caps, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LD_PRELOAD", raising=False)


@pytest.mark.parametrize(
    "source", sorted((ROOT / "notebooks" / "src").glob("[0-9]*.py")), ids=lambda p: p.stem
)
def test_the_kernel_stays_under_the_limit(source, builder, as_on_binder):
    pytest.importorskip("resource", reason="no memory statistics on this system")
    pytest.importorskip("nbclient")
    notebook = builder.build(source.stem, "solution")
    seconds, kernel, other = builder.execute(notebook, ROOT / "notebooks" / "solutions", 3000)
    print(f"{source.stem}: {kernel:.2f} GiB, a second process {other:.2f}, {seconds:.0f} s")
    assert max(kernel, other) < LIMIT
    said = "".join(str(o.get("text", "")) for c in notebook.cells for o in c.get("outputs", []))
    assert said.count("true: ") >= 5
    assert "NOT TRUE HERE" not in said, re.findall("NOT TRUE HERE.*", said)
