"""The HTML page in a real browser: nothing of it runs, nothing is cut off, light or dark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.guard_command import Guard

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HIT = "<img src=x onerror=document.title='hit'>"
# The page itself has no script; this one is put into a copy of it, to measure and to tell.
MEASURE = """<script>
addEventListener("load", () => {
  const edge = document.documentElement.getBoundingClientRect().right;
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => !e.closest(".wide") && e.getBoundingClientRect().right > edge + 1);
  const scrolled = [...document.querySelectorAll(".wide")].filter(
    (e) => e.scrollWidth > e.clientWidth + 1);
  const seen = getComputedStyle(document.body).color;
  document.documentElement.setAttribute("data-seen",
    [Math.round(edge), document.body.scrollWidth <= edge,
     wide.length, scrolled.length, seen].join("|"));
});
</script></body>"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NO CHROMIUM HERE: the HTML report was not rendered by a browser"
)

_NARROWEST = 500
"""Chromium without a head makes no window that is narrower."""

Render = Callable[..., str]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Return a function that renders a page and gives back its document as the browser has it."""

    def call(page: Path, *options: str, width: int = 1280) -> str:
        copy = page.with_name("measured.html")
        narrow = "" if width >= _NARROWEST else f"<style>html {{ width: {width}px }}</style>"
        copy.write_text(page.read_text().replace("</body>", narrow + MEASURE))
        done = subprocess.run(
            [
                *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
                *("--disable-background-networking", "--virtual-time-budget=2000"),
                *(f"--user-data-dir={tmp_path / 'chromium'}", f"--window-size={width},1500"),
                *(*options, "--dump-dom", copy.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return done.stdout.decode()

    return call


@pytest.fixture
def reports(guard: Guard) -> dict[str, Path]:
    """Return the pages of a good run, a failed one, and the rollback of that."""
    (guard.project / "models").mkdir()
    (guard.project / "models" / f"{HIT}.bin").write_text("x")
    (guard.project / "models" / ("a" * 200)).write_text("x")
    script = f'rm -r models; : > "{HIT}"; echo > {"b" * 150}; exit 3'
    assert guard("run", "--label", HIT, "--", "true").status == 0
    assert guard("run", "--label", HIT, "--", "sh", "-c", script).status == 3
    pages = {"good": guard.project.parent / "good.html", "bad": guard.project.parent / "bad.html"}
    assert guard("report", "1", "-o", pages["good"]).status == 0
    assert guard("report", "2", "-o", pages["bad"]).status == 0
    assert guard("rollback", "--last", "--yes").status == 0
    pages["rollback"] = guard.project.parent / "rollback.html"
    assert guard("report", "3", "-o", pages["rollback"]).status == 0
    return pages


def _seen(document: str) -> tuple[int, bool, int, int, str]:
    """Return right edge, whether all fits, what does not, scrolled tables, colour of the text."""
    pattern = r'data-seen="(\d+)\|(true|false)\|(\d+)\|(\d+)\|([^"]+)"'
    found = re.search(pattern, document)
    assert found is not None, document[:500]
    return int(found[1]), found[2] == "true", int(found[3]), int(found[4]), found[5]


@pytest.mark.timeout(300)
def test_names_stay_names(reports: dict[str, Path], render: Render) -> None:
    """A file called like an element is text; nothing of the page is a request or a script."""
    for page in reports.values():
        document = render(page)
        assert "<img" not in document
        assert "<title>hit" not in document
        # Ours, which measures, is the only one; what the browser adds for a broken name is none.
        assert document.count("<script") == 1
    assert "&lt;img src=x onerror" in render(reports["bad"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [1280, 500, 400])
def test_nothing_is_cut_off(reports: dict[str, Path], render: Render, width: int) -> None:
    """Long names are broken; the page is never wider than the window."""
    for name, page in reports.items():
        edge, fits, outside, scrolled, _ = _seen(render(page, width=width))
        assert width - 20 <= edge <= width
        assert (fits, outside) == (True, 0), name
        # On a small telephone a table with five columns may be moved under the finger.
        assert scrolled == 0 or width < _NARROWEST, name


@pytest.mark.timeout(300)
def test_it_is_dark_where_the_user_wants_it(reports: dict[str, Path], render: Render) -> None:
    """Text is light on dark, and the verdict's colour is another one."""
    light = _seen(render(reports["bad"], "--blink-settings=preferredColorScheme=1"))[-1]
    dark = _seen(render(reports["bad"], "--blink-settings=preferredColorScheme=0"))[-1]
    assert (light, dark) == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")


@pytest.mark.timeout(300)
def test_a_picture_of_it_is_no_empty_sheet(
    reports: dict[str, Path], render: Render, tmp_path: Path
) -> None:
    """The browser paints it."""
    picture = tmp_path / "page.png"
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><title>blank</title></body>")
    sizes = []
    for page in (blank, reports["bad"]):
        render(page, f"--screenshot={picture}")
        sizes.append(os.path.getsize(picture))
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
    assert sizes[1] > 4 * sizes[0], sizes
