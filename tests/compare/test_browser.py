"""The report in a real browser, without a screen and without a network."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowerpress.simulations.compare.comparison import Comparison, Result
from flowerpress.simulations.compare.methods import Candidate, Method
from flowerpress.simulations.compare.report import html
from flowerpress.simulations.compare.settings import Settings
from flowerpress.simulations.compare.targets import Metric
from flowerpress.simulations.experiment import Experiment

from .made_up import outcome

HOSTILE = "</script><img src=x onerror=\"document.title='hit'\">@PLOTLY@"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")


def report() -> str:
    """Three methods and one that cannot run."""

    def result(label: str, strategy: str, *ends: float, up: int, status: str = "done") -> Result:
        runs = [
            outcome([0.1, end / 2, end], up=up, clients=4, status=status, reason="it grew")
            for end in ends
        ]
        return Result(
            Candidate(label, Experiment(task="digits", strategy=strategy), "given"),
            None,
            tuple(runs),
        )

    settings = Settings(
        task="digits",
        methods=(Method("ef21"),),
        targets=("accuracy>=0.75",),
        task_options={"path": HOSTILE},
    )
    results = (
        result("dense", "fedavg", 0.9, 0.94, up=40_000),
        result(HOSTILE, "ef21", 0.8, 0.7, up=1_000),
        result("third", "ef14", 0.85, 0.87, up=3_000),
        result("wild", "ef14", math.nan, up=3_000, status="diverged"),
    )
    refused = {"birder topk": "it cannot"}
    return html(Comparison(settings, Metric("accuracy", True), results, refused), "flowerpress")


def test_the_report_loads_nothing() -> None:
    text = report()
    head = text.replace(text.partition("<script>")[2].partition("</script>")[0], "")
    assert "http" not in head  # the page's own part; plotly.js holds addresses that it never asks
    assert "@DATA@" not in head


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that has the report open."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("there is no chromium with its chromedriver: install both to test the report")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for each in ("headless=new", "no-sandbox", "window-size=1250,1000", "disable-dev-shm-usage"):
        options.add_argument(f"--{each}")
    options.add_argument("--proxy-server=127.0.0.1:9")  # nobody is there: no network
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(), encoding="utf-8")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(path.as_uri())
        soon(lambda: driver.find_elements("css selector", "#chart .scatterlayer path.js-line"))
        yield driver
    finally:
        driver.quit()


def soon(look: Callable[[], Any]) -> Any:
    """Wait until there is something, some seconds at most."""
    deadline = time.monotonic() + 10
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


def labels(page: Any) -> list[str]:
    return [td.text for td in page.find_elements("css selector", "#table tbody td:first-child")]


def heading(page: Any, text: str) -> Any:
    (found,) = (
        each for each in page.find_elements("css selector", "#table th button") if each.text == text
    )
    return found


def test_it_opens_without_an_error(page: Any) -> None:
    assert page.title == "digits: 4 methods"
    assert page.get_log("browser") == []
    assert page.find_elements("tag name", "img") == []
    assert labels(page) == ["dense", "third", HOSTILE, "wild", "birder topk"]


def test_its_table_is_sorted_by_a_click(page: Any) -> None:
    heading(page, "up").click()
    assert labels(page) == [HOSTILE, "third", "dense", "wild", "birder topk"]
    heading(page, "up").click()
    assert labels(page) == ["dense", "third", HOSTILE, "wild", "birder topk"]
    state = heading(page, "up").find_element("xpath", "..").get_attribute("aria-sort")
    assert state == "descending"


def test_a_point_shows_its_figures_when_hovered(page: Any) -> None:
    from selenium.webdriver import ActionChains

    where = page.execute_script(
        """const chart = document.getElementById('chart'), line = chart.data.find(
             (each) => each.name === 'dense'), box = chart.getBoundingClientRect();
           const axes = chart._fullLayout, last = line.x.length - 1;
           return [box.left + axes.xaxis._offset + axes.xaxis.d2p(line.x[last]),
                   box.top + axes.yaxis._offset + axes.yaxis.d2p(line.y[last])];"""
    )
    mouse = ActionChains(page)
    mouse.w3c_actions.pointer_action.move_to_location(int(where[0]) - 2, int(where[1]))
    mouse.perform()
    mouse.w3c_actions.pointer_action.move_to_location(int(where[0]), int(where[1]))
    mouse.perform()
    (shown,) = soon(lambda: page.find_elements("css selector", "#chart .hoverlayer .hovertext"))
    assert "dense" in shown.text
    assert "92.00%" in shown.text.replace(" ", "")
    assert "80k" in shown.text


def test_the_axis_and_the_scale_are_chosen(page: Any) -> None:
    def drawn() -> list[Any]:
        script = "const c = document.getElementById('chart'); return [c.layout.xaxis.title.text, "
        found = page.execute_script(script + "c.layout.xaxis.type, c.data.length];")
        return list(found)

    assert drawn()[:2] == ["bytes up, all clients", "log"]
    choose = page.find_element("id", "axis")
    choose.find_element("css selector", "option[value=rounds]").click()
    page.find_element("id", "logx").click()
    name, scale, lines = drawn()
    assert (name, scale) == ("rounds", "linear")
    page.find_element("id", "spread").click()
    assert drawn()[2] == lines - 6  # two edges for each of three methods with a range
