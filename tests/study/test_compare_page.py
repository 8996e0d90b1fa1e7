"""The page of a comparison: whole, self-contained, escaped; and as a browser shows it."""

import base64
import html.parser
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from comparisons import made
from matplotlib import image

from keras_transfer.study.comparison import Comparison
from keras_transfer.study.trial import Trial

EVIL = "<script>alert(\"ä\")</script> & 'more'"
VOID = {"meta", "img", "line", "circle", "br"}


class Strict(html.parser.HTMLParser):
    """Refuses tags that are not closed in turn, and notes all that is on the page."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert [tag] == self.open[-1:], f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.texts.append(text)


def _read(page):
    reader = Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def comparison():
    whole = made(
        {"scratch": 0.5, EVIL: 0.9, "head": 0.88}, classes=("ant", EVIL, "bee"), spread=0.02, source=0.7,
        **{EVIL: {"source_accuracy": 0.6}},
    )  # fmt: skip
    broken = Trial("broken", 0, problem=f"failed: {EVIL}")
    methods = [*whole.methods, made({"broken": 0.5}).methods[0]]
    return Comparison(methods, [*whole.trials, broken], whole.data, whole.source)


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "page.html"
    comparison.to_html(path, title=f"Which? {EVIL}", remarks=[f"Validation is like test. {EVIL}"])
    return path


def test_the_page_is_whole_and_every_name_is_escaped(page):
    reader = _read(page.read_text("utf-8"))
    names = [tag for tag, _ in reader.tags]
    assert "script" not in names
    assert names.count("h1") == names.count("title") == names.count("table") == 1
    # findings, table, cost, curves, classes, confusion, data, how it was measured
    assert names.count("section") == 8
    assert sum(EVIL in text for text in reader.texts) > 5
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 8


def test_the_page_needs_no_network(page):
    reader = _read(page.read_text("utf-8"))
    for tag, attributes in reader.tags:
        assert tag not in {"link", "script", "iframe", "object", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:image/png;base64,") or name not in attributes
    style = re.search(r"<style>(.*?)</style>", page.read_text("utf-8"), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_is_there_and_says_what_it_shows(page):
    pictures = [attributes for tag, attributes in _read(page.read_text("utf-8")).tags if tag == "img"]
    assert len(pictures) == 3 + 3  # cost, curves, classes, and a confusion matrix for each method
    for attributes in pictures:
        content = base64.b64decode(attributes["src"].partition(",")[2], validate=True)
        assert content.startswith(b"\x89PNG")
        assert attributes["alt"]
        assert 300 < int(attributes["width"]) < 1300


def test_the_page_says_what_the_comparison_says(page, comparison):
    text = " ".join(_read(page.read_text("utf-8")).texts)
    for sentence in comparison.conclusions:
        assert sentence in text
    for row in comparison.rows:
        assert f"{100 * row.accuracy.value:.1f} %" in text
        assert f"{row.macro_f1.value:.3f}" in text
    assert "Validation is like test." in text
    assert "plan of scratch: 1 stage, 5 epochs" in text


def test_a_page_without_any_figure_says_so(tmp_path):
    whole = made({"head": 0.8})
    Comparison(whole.methods, [Trial("head", 0, problem="failed: NaN")], whole.data).to_html(tmp_path / "page.html")
    reader = _read((tmp_path / "page.html").read_text("utf-8"))
    assert "No run came to an end" in " ".join(reader.texts)
    assert not [tag for tag, _ in reader.tags if tag == "img"]


def test_one_method_and_one_seed_are_enough_for_a_page(tmp_path):
    made({"head": 0.8}, seeds=1).to_html(tmp_path / "page.html")
    assert 'id="classes"' not in (tmp_path / "page.html").read_text("utf-8")


def _chromium():
    names = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("NOT TESTED: no Chromium on the PATH or in CHROMIUM, so no browser has looked at the page")
    return found


def _browse(page, *options):
    """Chromium's answer, with no network: any name that it looked up would not be found."""
    command = [
        _chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [1280, 600])
def test_in_chromium_every_picture_is_seen_and_nothing_is_wider_than_the_window(page, tmp_path, width):
    measuring = (
        "<script>onload = () => document.title = [document.documentElement.scrollWidth, document.images.length,"
        " [...document.images].filter(i => i.complete && i.naturalWidth > 0 && i.getBoundingClientRect().height > 50)"
        ".length, document.querySelectorAll('h2').length].join(' ')</script></body>"
    )
    measured = tmp_path / "measured.html"
    measured.write_text(page.read_text("utf-8").replace("</body>", measuring), "utf-8")
    dumped = _browse(measured, f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom")
    title = re.search("<title>(.*?)</title>", dumped)[1]
    assert [int(number) for number in title.split()] == [width, 6, 6, 7]


def test_in_chromium_the_page_looks_like_a_page(page, tmp_path):
    _browse(page, "--window-size=1280,4000", f"--screenshot={tmp_path / 'page.png'}")
    pixels = image.imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape == (4000, 1280, 3)
    inked = (pixels < 0.9).any(axis=-1)
    # Text or pictures all the way down, and margins left free.
    assert all(part.mean() > 0.003 for part in np.array_split(inked[:3000], 10))
    assert not inked[:, :40].any()
    assert not inked[:, -40:].any()
