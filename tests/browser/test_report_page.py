# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's page in a real browser (Chromium or Chrome, without a network), at 3, 50 and 500 hosts."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_page import render_html
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import fleet_report
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.support.fleet import DRIFT, NOW, addresses, fleet

#: Where screenshots go, to be looked at; by default with the test's own files.
PICTURES = os.environ.get("REDISOPS_PICTURES")


@pytest.fixture(scope="module", name="chromium")
def _chromium() -> t.Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield browser
    browser.quit()


@pytest.fixture(name="page")
def _page(chromium, tmp_path):
    def show(size: int, dark: bool = False) -> webdriver.Chrome:
        file = tmp_path / f"fleet-{size}.html"
        file.write_text(render_html(fleet_report(fleet(size), DRIFT, NOW, addresses(size))), encoding="utf-8")
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get_log("browser")
        chromium.get(file.as_uri())
        picture = pathlib.Path(PICTURES or tmp_path) / f"fleet-{size}{'-dark' if dark else ''}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        assert chromium.save_screenshot(str(picture))
        return chromium

    return show


def rows(browser: webdriver.Chrome, table: str) -> list[list[str]]:
    """Texts of the rows that can be seen, in one question to the browser."""
    script = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter(row => row.offsetParent !== null)
                .map(row => [...row.cells].map(cell => cell.innerText.trim()))"""
    return browser.execute_script(script, table)


def type_into(browser: webdriver.Chrome, table: str, words: str) -> None:
    field = browser.find_element(By.CSS_SELECTOR, f'[data-filters="{table}"]')
    field.clear()
    field.send_keys(words or " ")


@pytest.mark.parametrize("size", [3, 50, 500])
def test_every_set_and_host_is_there_and_nothing_goes_wrong(page, size):
    browser = page(size)
    assert browser.get_log("browser") == []  # neither an error of script nor anything that the page may not load
    assert len(rows(browser, "hosts-table")) == size
    assert len(rows(browser, "groups-table")) == -(-size // 3)
    requests = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name).filter(one => !one.startsWith('data:'))"
    )
    assert requests == []
    # nothing is wider than the window, at a desk and on a phone
    for width in (1280, 390):
        browser.set_window_size(width, 1000)
        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), width
    browser.set_window_size(1280, 1000)


def test_the_filter_leaves_what_was_asked_for(page):
    browser = page(50)
    type_into(browser, "groups-table", "set-002")
    assert [row[1] for row in rows(browser, "groups-table")] == ["set-002"]
    assert browser.find_element(By.ID, "groups-table-count").text == "1 of 17"
    type_into(browser, "groups-table", "redis-001")  # a host finds its set
    assert [row[1] for row in rows(browser, "groups-table")] == ["set-001"]
    type_into(browser, "hosts-table", "set-001 replica")
    assert [row[1] for row in rows(browser, "hosts-table")] == ["redis-002", "redis-003"]
    type_into(browser, "groups-table", "no such thing")
    assert rows(browser, "groups-table") == []


def test_findings_are_shown_by_severity(page):
    browser = page(50)
    shown = {row[0] for row in rows(browser, "findings-table")}
    assert shown == {"critical", "warning", "unknown"}
    browser.find_element(By.CSS_SELECTOR, 'input[data-severity="info"]').click()
    assert {row[0] for row in rows(browser, "findings-table")} == {*shown, "info"}
    for name in ("critical", "unknown", "info"):
        browser.find_element(By.CSS_SELECTOR, f'input[data-severity="{name}"]').click()
    assert {row[0] for row in rows(browser, "findings-table")} == {"warning"}


def test_a_click_sorts_and_a_second_one_turns_it(page):
    browser = page(50)
    assert [row[0] for row in rows(browser, "hosts-table")][:3] == ["critical", "critical", "unknown"]
    head = browser.find_elements(By.CSS_SELECTOR, "#hosts-table th button")[5]  # keys, which are numbers with spaces
    head.click()
    keys = [row[5] for row in rows(browser, "hosts-table")]
    assert keys[0] == ""  # not known comes before the least
    numbers = [int("".join(filter(str.isdigit, text))) for text in keys[1:]]
    assert numbers == sorted(numbers)
    assert browser.find_elements(By.CSS_SELECTOR, "#hosts-table th")[5].get_attribute("aria-sort") == "ascending"
    head.click()
    assert [row[5] for row in rows(browser, "hosts-table")] == keys[::-1]
    assert browser.find_elements(By.CSS_SELECTOR, "#hosts-table th")[5].get_attribute("aria-sort") == "descending"


def test_a_set_opens_from_its_line_with_topology_and_timeline(page):
    browser = page(50)
    assert not browser.find_element(By.ID, "group-1").get_attribute("open")
    browser.find_element(By.CSS_SELECTOR, '#groups-table a[href="#group-1"]').click()
    assert browser.find_element(By.ID, "group-1").get_attribute("open")
    inside = browser.find_element(By.ID, "group-1")
    assert len(inside.find_elements(By.CSS_SELECTOR, "rect.node")) == 3
    assert len(inside.find_elements(By.CSS_SELECTOR, "line.link.down")) == 1
    states = [point.get_attribute("class").split()[1] for point in inside.find_elements(By.CSS_SELECTOR, ".point")]
    assert sorted(states) == ["failed", "failed", *["verified"] * 5]  # a backup and the drill failed


CONTRAST = """
const luminance = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const back = node => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor;
  if (!/, 0\\)$|transparent/.test(c)) return c } return getComputedStyle(document.body).backgroundColor };
const low = [];
for (const node of document.querySelectorAll("h1,h2,h3,p,td,th,summary,label,button,a,.tag,.missed,.met,.soft,code,li")) {
  if (node.offsetParent === null || !node.innerText.trim()) continue;
  const [one, other] = [luminance(getComputedStyle(node).color), luminance(back(node))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < 4.5) low.push([node.tagName, node.className, node.innerText.slice(0, 30), ratio.toFixed(2)]);
}
return low;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_in_light_and_dark_and_without_a_mouse(page, dark):
    browser = page(9, dark)
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(15, 19, 24)") == dark
    assert browser.execute_script(CONTRAST) == []  # WCAG AA
    unnamed = "return [...document.querySelectorAll('svg')].filter(one => one.getAttribute('role') !== 'img' || !one.getAttribute('aria-label')).length"
    assert browser.execute_script(unnamed) == 0
    fields = "return [...document.querySelectorAll('input')].filter(one => !one.labels.length || !one.labels[0].innerText.trim()).length"
    assert browser.execute_script(fields) == 0
    heads = "return [...document.querySelectorAll('th')].filter(one => !one.scope).length"
    assert browser.execute_script(heads) == 0
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3')].map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_it_prints_whole(page):
    browser = page(50)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "landscape": True})
    assert len(printed["data"]) > 20000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.find_element(By.CSS_SELECTOR, ".tools").value_of_css_property("display") == "none"
        assert browser.find_element(By.CSS_SELECTOR, ".scroll").value_of_css_property("overflow-x") == "visible"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
