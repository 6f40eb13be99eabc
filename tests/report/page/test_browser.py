"""The page in a real browser: it asks nothing of the network, says nothing on the console, and its controls work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.report.page.content import PageContent
from orchestrator.report.page.render import content_of, render_page
from orchestrator.report.page.server import PageServer
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.trial.result import TrialResult
from tests.report.page.world import made_up, make_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; Debian has it in the package chromium")

Browser = playwright.Browser
Page = playwright.Page


FEW = {"scenarios": ["split-digits/task"], "methods": ["naive", "joint"]}


def hostile(planned: PlannedTrial) -> TrialResult:
    names = ("<script>document.title='owned'</script>", "</script><script>document.title='owned'</script>",
             "<img src=x onerror=\"document.title='owned'\">", "javascript:alert(1)")  # fmt: skip
    return made_up(planned, names)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> PageContent:
    return content_of(make_run(tmp_path_factory.mktemp("page") / "run"))


@pytest.fixture(scope="module")
def file(content: PageContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("file") / "report.html"
    place.write_text(render_page(content, "0" * 32), encoding="utf-8")
    return place


class Watched:
    """A tab with what it said and asked for."""

    def __init__(self, browser: Browser, width: int = 1280) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def draw_all(self) -> int:
        """Draw every figure and return how many were drawn."""
        self.page.evaluate("drawAll()")
        return int(self.page.locator("figure[data-state=drawn]").count())


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_every_figure_is_drawn_in_silence(browser: Browser, file: Path, content: PageContent, width: int) -> None:
    tab = Watched(browser, width)
    tab.page.goto(file.as_uri())
    assert tab.draw_all() == len(list(content.figures)) > 10
    assert tab.said == []
    assert [url for url in tab.asked if url != file.as_uri() and not url.startswith("data:")] == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    n_charts = sum(len(figure.charts) for figure in content.figures)
    assert tab.page.locator("figure svg").count() == n_charts
    assert tab.page.locator("figure svg .mark-symbol path").count() > 20
    tab.page.close()


def test_the_sliders_say_what_the_figures_know(browser: Browser, file: Path, content: PageContent) -> None:
    """The script finds the same sentence as `Slider.words_at`, at every step and between two."""
    tab = Watched(browser)
    tab.page.goto(file.as_uri())
    tab.draw_all()
    moved = 0
    for figure in content.figures:
        if figure.slider is None:
            continue
        slider = tab.page.locator(f"#{figure.name} input")
        places = [at for at, _ in figure.slider.says]
        for value in [*places, *((a + b) / 2 for a, b in pairwise(places))]:
            slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", value)
            real = float(slider.evaluate("e => e.value"))
            says = tab.page.locator(f"#{figure.name} .says")
            playwright.expect(says).to_have_text(figure.slider.words_at(real))
            moved += 1
    assert moved > 10
    assert tab.said == []
    tab.page.close()


def test_the_slider_over_tasks_pales_what_comes_later(browser: Browser, file: Path) -> None:
    tab = Watched(browser)
    tab.page.goto(file.as_uri())
    tab.draw_all()
    opaque = "figure#scenario-0-matrix .drawing >> nth=0 >> .mark-rect path[opacity='1']"
    before = tab.page.locator(opaque).count()
    slider = tab.page.locator("#scenario-0-matrix input")
    slider.focus()
    slider.press("Home")
    playwright.expect(tab.page.locator("#scenario-0-matrix output")).to_have_text("1")
    playwright.expect(tab.page.locator(opaque)).not_to_have_count(before)
    assert 0 < tab.page.locator(opaque).count() < before
    tab.page.close()


def test_a_heading_sorts_by_the_numbers(browser: Browser, file: Path, content: PageContent) -> None:
    tab = Watched(browser)
    tab.page.goto(file.as_uri())
    table = tab.page.locator("table.methods").first
    head = table.get_by_role("button", name="accuracy", exact=True)
    rows = content.scenarios[0].methods
    column = content.scenarios[0].heads.index("accuracy")
    ordered = [row.method for row in sorted(rows, key=lambda row: float(row.cells[column].value or 9))]
    names = "rows => rows.map(r => r.cells[0].childNodes[0].textContent)"
    head.press("Enter")
    assert table.locator("tbody tr").evaluate_all(names) == ordered
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("accuracy")
    head.click()
    assert table.locator("tbody tr").evaluate_all(names) == ordered[::-1]
    tab.page.close()


def test_a_strangers_run_runs_no_code(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FEW, result=hostile)
    place = tmp_path / "report.html"
    place.write_text(render_page(content_of(run), "0" * 32), encoding="utf-8")
    tab = Watched(browser)
    tab.page.goto(place.as_uri())
    tab.draw_all()
    tab.page.locator("figure svg .mark-rect path").first.hover()
    playwright.expect(tab.page.locator("#vg-tooltip-element")).to_be_visible()
    assert tab.page.title() == "page: the answer of a sweep"
    assert tab.page.evaluate("document.scripts.length") == 3
    tab.page.evaluate("const s = document.createElement('script'); s.textContent = 'document.title = 1';"
                      " document.body.append(s)")  # fmt: skip
    assert tab.page.title() == "page: the answer of a sweep", "the page's policy lets only its own scripts run"
    tab.page.close()


def test_a_served_page_renews_itself(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", FEW, n_trials=3)
    server = PageServer(str(tmp_path / "run"))
    server.start()
    tab = Watched(browser)
    try:
        tab.page.goto(server.address)
        assert "Not final" in tab.page.inner_text("body")
        make_run(tmp_path / "run", FEW)
        playwright.expect(tab.page.locator("body")).not_to_contain_text("Not final", timeout=30_000)
        assert [text for text in tab.said if "Failed" not in text] == []
        assert {url.split("?")[0] for url in tab.asked if not url.startswith("data:")} == {
            f"http://127.0.0.1:{server.port}{path}" for path in ("/", "/state")
        }
    finally:
        tab.page.close()
        server.close()
