"""The page is one file with every number and caption, and loads nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest
from fakes import random_case  # noqa: E402

from nucleus_course.evaluation import evaluate  # noqa: E402
from nucleus_course.evaluation.metrics import KEYS  # noqa: E402
from nucleus_course.reports.html import page, write_html  # noqa: E402


class Reader(HTMLParser):
    """Collects tags, sources and text; fails on tags that are not closed in order."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.images, self.words = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def case():
    dataset, predictions, _ = random_case(5, images=3)
    predictions.info["model"] = "<script>alert('x')</script> & co"
    return dataset, predictions, evaluate(dataset, predictions, progress=False)


@pytest.fixture(scope="module")
def text(case):
    return page(*case, bootstrap=20, worst=2)


def test_the_page_is_well_formed_and_complete(case, text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    words = " ".join(reader.words)
    report = case[2]
    for key in KEYS:
        assert key in words
        assert f"{report.metrics[key]:.2f}" in words
    assert re.search(r"\d+\.\d to \d+\.\d", words)  # intervals, computed for the page
    for kind in report.types:
        assert kind in words
    assert "Definitions" in words and f"{report.counts['nuclei']} nuclei" in words


def test_nothing_comes_from_elsewhere(text):
    reader = Reader()
    reader.feed(text)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert reader.images and all(image["src"].startswith("data:image/") for image in reader.images)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)|url\(|@import", text)
    assert "default-src 'none'" in text


def test_every_picture_says_in_words_what_it_shows(text):
    reader = Reader()
    reader.feed(text)
    assert all(len(image["alt"]) > 20 for image in reader.images)
    assert reader.tags.count("figcaption") == len(reader.images)


def test_names_are_escaped(text):
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_synthetic_images_and_warnings_are_told(case):
    dataset, predictions, report = case
    import copy

    marked = copy.copy(report)
    marked.synthetic, marked.warnings = True, ["mind the gap"]
    text = page(dataset, predictions, marked, bootstrap=0, worst=0)
    assert "synthetic" in text and "mind the gap" in text and "% interval" not in text


def test_write_html_is_one_small_file(case, tmp_path):
    dataset, predictions, report = case
    options = {"bootstrap": 0, "worst": 1, "others": {report.name: report}}
    path = write_html(tmp_path / "deep" / "report.html", *case, **options)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert path.stat().st_size < 1_500_000
    text = path.read_text(encoding="utf-8")
    assert "Compared" in text and "co (other)" in text  # both have the same name and are drawn
