"""Pages of every kind: what they load, how their figures look and read, and how they look in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from made_reports import (
    Reader,
    change,
)
from matplotlib.image import imread

from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.page import comparison_page
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_a_page_needs_nothing_but_itself(kind: str, reports: dict[str, Path]) -> None:
    html = (reports[kind] / "report.html").read_text()
    assert "http:" not in html
    assert "https:" not in html
    reader = Reader(html)
    assert not {"link", "img", "iframe", "object"} & reader.attributes.keys()
    assert all("src" not in attributes for attributes in reader.attributes["script"])
    pictures = reader.attributes.pop("image", [])
    assert all((picture["href"] or "").startswith("data:image/png;base64,") for picture in pictures)
    assert len(pictures) == (8 if kind == "detection" else 0)  # two images, four figures each
    links = [attributes.get("href", "#") for tag in reader.attributes.values() for attributes in tag]
    assert all(link and link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_figures_take_their_colours_from_the_page_and_are_told_in_words(kind: str, reports: dict[str, Path]) -> None:
    html = (reports[kind] / "report.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    for svg in drawings:
        if "_proposals-" not in svg:  # whose colours are temperatures
            assert not re.search(r"#[0-9a-fA-F]{6}", svg)
        assert "var(--ink)" in svg or "var(--paper)" in svg
    identifiers = re.findall(r' id="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))
    references = {name for svg in drawings for name in re.findall(r'(?:href="#|url\(#)([^")]*)', svg)}
    assert references <= set(identifiers)
    labels = [one["aria-label"] or "" for one in Reader(html).attributes["div"] if one.get("role") == "img"]
    assert len(labels) == len(drawings)
    assert all(len(label) > 40 for label in labels)


def test_what_users_write_is_text_not_markup(run: Path, comparison: Path) -> None:
    change(run / "config.json", dataset="<script>alert(1)</script>", method="a&b")
    html = run_page(RunRecord.read(run)).html()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, a&amp;b" in html
    content = (comparison / "comparison.json").read_text()
    (comparison / "comparison.json").write_text(content.replace('"better"', '"<b>$x$&"'))
    html = comparison_page(ComparisonRecord.read(comparison)).html()
    assert "<b>" not in html
    assert html.count("&lt;b&gt;$x$&amp;") > 3  # in the table, the words and the figures


def browse(page: Path, *options: str) -> str:
    """Open a page in a browser without a window; return what it prints."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_a_page_fits_a_phone_and_knows_the_dark(kind: str, reports: dict[str, Path], tmp_path: Path) -> None:
    html = (reports[kind] / "report.html").read_text()
    probe = """<script>
      const heads = [...document.querySelectorAll("th button")];
      if (heads.length) heads[1].click();
      if (heads.length) heads[1].click();
      const sizes = [...document.querySelectorAll("figure text")].map((text) => {
        const svg = text.ownerSVGElement;
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        return parseFloat(getComputedStyle(text).fontSize) * scale;
      });
      const first = document.querySelector("tbody th");
      parent.document.body.textContent = JSON.stringify({
        width: innerWidth, content: document.documentElement.scrollWidth, smallest: Math.min(...sizes),
        heads: heads.length, first: first.textContent,
      });
    </script></body>"""
    page = tmp_path / "probe.html"
    framed = escape(html.replace("</body>", probe))  # a window cannot be as narrow as a phone, but a frame can
    page.write_text(f'<body><iframe width="390" height="844" style="border: 0" srcdoc="{framed}"></iframe></body>')
    told = browse(page, f"--user-data-dir={tmp_path}", "--dump-dom")
    found = json.loads(re.search(r"<body>\s*(\{.*\})\s*</body>", told, flags=re.DOTALL)[1])  # type: ignore[index]
    assert found["width"] == 390
    assert found["content"] <= 390
    assert found["smallest"] >= 9.0  # pixels
    assert found["heads"] == (8 if kind == "comparison" else 0)
    assert found["first"] == ("worse" if kind == "comparison" else "teacher")  # sorted by the mean, upwards
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        options = [f"--blink-settings=preferredColorScheme={number}", f"--screenshot={picture}"]
        browse(reports[kind] / "report.html", f"--user-data-dir={tmp_path}", *options, "--window-size=390,844")
        pixels = imread(picture)[..., :3]
        assert pixels.shape[1] == 390
        assert np.ptp(pixels) > 0.5
        brightness[scheme] = float(pixels[0, 0].mean())
    assert brightness["dark"] < 0.2
    assert brightness["light"] > 0.9
