"""The web site builds without a warning, and every link in it works."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Links(HTMLParser):
    """Targets, names and pictures without an alternative text of one page."""

    def __init__(self):
        super().__init__()
        self.targets, self.names, self.without_alt, self.language = [], set(), [], None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "html":
            self.language = attrs.get("lang")
        if tag == "img" and not (attrs.get("alt") or "").strip():
            self.without_alt.append(attrs.get("src"))
        for key in ("href", "src"):
            if attrs.get(key):
                self.targets.append(attrs[key])


def read(path):
    page = Links()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def dead_links(folder):
    """Broken internal links of the pages in a folder: [(page, link)]."""
    pages = {path: read(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    dead = []
    for path, page in pages.items():
        for link in page.targets:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            name = unquote(parts.fragment)
            known = pages[target].names if target in pages else None
            if not target.exists() or (name and known is not None and name not in known):
                dead.append((path.name, link))
    return dead


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(module, reason="pip install 'nucleus-course[site]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(folder / "trees"), "-c", "docs", ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return folder / "html"


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site):
    assert dead_links(site) == []
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    notebooks = (ROOT / "notebooks" / "src").glob("[0-9]*.py")
    wanted = {f"notebooks/solutions/{path.stem}.html" for path in notebooks}
    wanted |= {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert wanted | {"index.html", "README.html", "search.html"} <= names


@pytest.mark.slow
def test_pages_say_their_language_and_what_their_pictures_show(site):
    for path in site.rglob("*.html"):
        page = read(path)
        assert page.language == "en", path.name
        assert page.without_alt == [], path.name


@pytest.mark.slow
def test_the_reference_has_the_public_names_and_solutions_show_their_outputs(site):
    import nucleus_course

    names = read(site / "docs" / "api.html").names
    values = {"__version__", "PRESETS"}
    missing = {n for n in nucleus_course.__all__ if f"nucleus_course.{n}" not in names} - values
    assert missing == set()
    page = (site / "notebooks" / "solutions" / "01_inspect_the_data.html").read_text("utf-8")
    assert "touching_pairs: PASSED" in page and "<figcaption" in page


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">1</a><a href="c.html">2</a>', "utf-8")
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="#there">3</a>', "utf-8")
    assert dead_links(tmp_path) == [("a.html", "b.html#here"), ("a.html", "c.html")]
