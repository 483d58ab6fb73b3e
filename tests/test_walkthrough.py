"""docs/walkthrough.md quotes the code's own lines."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "walkthrough.md"


def stops():
    """(heading, files, quoted lines) of each stop."""
    text = PAGE.read_text(encoding="utf-8")
    for part in re.split(r"^#{2,3} ", text, flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        if not heading[0].isdigit():
            continue
        files, folder = [], None
        for name in re.findall(r"`([\w/]+\.py)`", heading):
            folder = (ROOT / name).parent if "/" in name else folder
            files.append(ROOT / name if "/" in name else folder / name)
        quotes = re.findall(r"^```python\n(.*?)^```", body, flags=re.M | re.S)
        yield heading, files, [line for block in quotes for line in block.splitlines()]


@pytest.mark.parametrize(
    "heading, files, lines", stops(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_each_stop_quotes_lines_of_its_files(heading, files, lines):
    assert files, heading
    own = {line for file in files for line in file.read_text(encoding="utf-8").splitlines()}
    assert len(lines) >= 2, heading
    assert not [line for line in lines if line not in own], heading
