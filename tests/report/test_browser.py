"""The page in a real browser: headless Chromium, driven as a user drives it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import quick_settings

import minirelu as mr
from minirelu.report.page import write_report
from minirelu.report.units import as_json
from minirelu.runs.prepare import create_run
from minirelu.text.tokenizer import Tokenizer

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.browser
HOSTILE = (
    "</script><script>document.title='owned'</script> "
    "<img src=x onerror=\"document.title='owned'\"> <!-- & &lt; \x1b[31m \u202e {{ 7*7 }} '] "
    "Donaudampfschifffahrtsgesellschaftskapitaenskajuetentuerschluessellochabdeckung\n"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium with chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(finished_run) -> Path:
    return write_report(finished_run)


def show(browser, page: Path, width: int = 1200) -> None:
    """Open a page at a width, and fail on anything that the console says."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("browser")  # what was before
    browser.get(page.resolve().as_uri())
    check_console(browser)


def check_console(browser) -> None:
    assert browser.get_log("browser") == []


def css(browser, selector: str) -> list:
    return browser.find_elements("css selector", selector)


def units_listed(browser) -> list[int]:
    return [int(button.text) for button in css(browser, "#units-table .unit button")]


def column(browser, number: int) -> list[str]:
    return [cell.text for cell in css(browser, f"#units-table .unit td:nth-child({number})")]


def heading(browser, key: str):
    return css(browser, f"th[data-sort={key}]")[0]


def test_the_table_sorts_and_turns_pages(browser, page, finished_run):
    show(browser, page)
    on = finished_run.counts(finished_run.probes()[-1]["step"]).tokens_on[0]
    by_activity = sorted(range(32), key=lambda j: (-on[j], j))
    assert units_listed(browser) == by_activity[:25]
    assert heading(browser, "tokens_on").get_attribute("aria-sort") == "descending"
    assert column(browser, 2)[0] == f"{100 * on.max() / 256:.1f} %"

    css(browser, "th[data-sort=units] button")[0].click()
    assert units_listed(browser) == list(range(25))
    assert heading(browser, "units").get_attribute("aria-sort") == "ascending"
    assert heading(browser, "tokens_on").get_attribute("aria-sort") == "none"
    css(browser, "#units-next")[0].click()
    assert units_listed(browser) == list(range(25, 32))
    css(browser, "#units-next")[0].click()  # this is the last page
    assert units_listed(browser) == list(range(25, 32))
    css(browser, "th[data-sort=units] button")[0].click()
    assert units_listed(browser) == list(range(31, 6, -1))
    check_console(browser)


def test_search_finds_a_unit_by_number_and_by_token(browser, page, finished_run):
    from minirelu.report.units import unit_data

    data = unit_data(finished_run)
    show(browser, page)
    search = css(browser, "#units-search")[0]
    search.send_keys("17")
    assert units_listed(browser) == [17]
    search.clear()
    search.send_keys("99")
    assert units_listed(browser) == []
    assert "The search finds 0." in css(browser, "#units-status")[0].text

    layer = data["layers"][1]
    text = " GARDEN"  # case does not count
    expected = {
        j
        for j, (special, most) in enumerate(zip(layer["special"], layer["tokens"], strict=True))
        if any(text.lower() in data["vocabulary"][i].lower() for i in special[::2] + most[::2])
    }
    assert 0 < len(expected) < 25
    layers = css(browser, "#units-layer")[0]
    layers.send_keys("layer 1")
    search.clear()
    search.send_keys(text)
    assert set(units_listed(browser)) == expected
    search.clear()
    search.send_keys("·garden")  # as the page writes it
    assert set(units_listed(browser)) == expected
    check_console(browser)


def test_a_choice_of_kind_leaves_the_units_of_that_kind(browser, page, finished_run):
    from minirelu.report.units import unit_data

    data = unit_data(finished_run)
    names = [*data["specificity"]["kinds"], "none of these"]
    n = len(names) - 1
    show(browser, page)
    kinds = css(browser, "#units-kind")[0]
    seen = set()
    for l, layer in enumerate(data["layers"]):
        css(browser, "#units-layer")[0].send_keys(f"layer {l}")
        for at, name in enumerate(names):
            units = [
                j
                for j, bits in enumerate(layer["kinds"])
                if (bits >> at & 1 if at < 6 else not bits)
            ]
            (option,) = [o for o in css(browser, "#units-kind option") if o.text.startswith(name)]
            assert option.text == f"{name} ({len(units)})"
            option.click()
            listed = units_listed(browser)
            assert len(listed) == min(25, len(units)) and set(listed) <= set(units)
            badges = css(browser, "#units-table .unit td.tokens .kind")
            assert (name in {b.text for b in badges}) == (at < n and len(units) > 0)
            seen |= {name} if units else set()
    assert len(seen) > 1, "all units of the run are of one kind"
    kinds.send_keys("all")
    assert len(units_listed(browser)) == 25
    check_console(browser)


def test_a_unit_tells_what_it_fires_on_and_writes(browser, page, finished_run):
    from minirelu.report.units import unit_data

    data = unit_data(finished_run)
    layer, words = data["layers"][0], data["vocabulary"]
    unit = next(j for j in range(32) if len(layer["special"][j]) > 2)
    show(browser, page)
    css(browser, "#units-search")[0].send_keys(str(unit))
    browser.execute_script("arguments[0].click()", css(browser, "#units-table .unit button")[0])
    (detail,) = [d for d in css(browser, "#units-table .detail") if d.is_displayed()]
    special, _, tells = detail.find_elements("css selector", "table.firings")
    token, k = layer["special"][unit][:2]
    n = data["probe"].count(token)
    row = special.find_elements("css selector", "tbody td")
    assert row[1].text == f"{k} of {n}"
    assert float(row[3].text.split()[0]) == pytest.approx(
        k / n / (layer["tokens_on"][unit] / 256), abs=0.051
    )
    shown = [cell.text for cell in tells.find_elements("css selector", "td:nth-child(2)")]
    assert shown == [f"{x / 1000:.3f}" for x in layer["information"][unit]]
    shown = [cell.text for cell in tells.find_elements("css selector", "td:nth-child(3)")]
    assert shown == [f"{x / 1000:.3f}" for x in layer["shuffled"][unit]]
    for word, name in (("Raises", "raised"), ("Lowers", "lowered")):
        (told,) = [p for p in detail.find_elements("css selector", "p") if p.text.startswith(word)]
        tokens = [token.text for token in told.find_elements("css selector", "code")]
        visible = [words[i].replace(" ", "·").replace("\n", "↵") for i in layer[name][unit]]
        assert tokens == visible
    check_console(browser)


@pytest.mark.parametrize(
    "back, words",
    [(1, "It writes its trigger back"), (0, "It neither writes"), (-1, "It removes its trigger")],
)
def test_a_detector_says_what_it_detects_and_whether_it_writes_it(
    browser, page, tmp_path, back, words
):
    start = '<script type="application/json" id="unit-data">'
    before, _, rest = page.read_text(encoding="utf-8").partition(start)
    data, _, after = rest.partition("</script>")
    data = json.loads(data)
    layer, names = data["layers"][0], data["specificity"]["kinds"]
    unit = next(j for j in range(32) if layer["tokens"][j])
    layer["kinds"][unit] = 1 << names.index("token detector")
    layer["triggers"][unit], layer["back"][unit] = [[3], [5]], back
    changed = tmp_path / "changed.html"
    changed.write_text(before + start + as_json(data) + "</script>" + after, encoding="utf-8")
    show(browser, changed)
    css(browser, "#units-search")[0].send_keys(str(unit))
    browser.execute_script("arguments[0].click()", css(browser, "#units-table .unit button")[0])
    (detail,) = [d for d in css(browser, "#units-table .detail") if d.is_displayed()]
    assert words in detail.text and "token detector on " in detail.text
    (told,) = [p for p in detail.find_elements("css selector", "p:has(.kind)")]
    shown = [token.text for token in told.find_elements("css selector", "code")]
    assert shown == [data["vocabulary"][i].replace(" ", "·") for i in (3, 5)]
    check_console(browser)


def press_tab_until(browser, wanted) -> None:
    from selenium.webdriver import ActionChains, Keys

    for _ in range(60):
        if browser.switch_to.active_element == wanted:
            return
        ActionChains(browser).send_keys(Keys.TAB).perform()
    raise AssertionError("the Tab key does not lead there")


def test_a_unit_opens_with_the_keyboard_alone(browser, page, finished_run):
    from selenium.webdriver import ActionChains, Keys

    show(browser, page)
    button = css(browser, "#units-table .unit button")[1]
    unit = int(button.text)
    press_tab_until(browser, button)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert button.get_attribute("aria-expanded") == "true"
    (detail,) = [d for d in css(browser, "#units-table .detail") if d.is_displayed()]
    assert detail.get_attribute("id") == button.get_attribute("aria-controls")
    assert f"Layer 0, unit {unit}" in detail.text and "First on at step 0" in detail.text
    probes = len(finished_run.probes())
    assert len(detail.find_elements("css selector", "svg.timeline circle")) == probes
    marks = detail.find_elements("css selector", "pre mark")
    assert 0 < len(marks) <= 5 and all(mark.text for mark in marks)
    ActionChains(browser).send_keys(Keys.SPACE).perform()
    assert not detail.is_displayed()
    assert button.get_attribute("aria-expanded") == "false"
    check_console(browser)


@pytest.mark.parametrize("width", [1200, 360])
def test_a_unit_that_died_and_came_back_says_so(browser, run_with_history, width):
    from minirelu.death.history import History
    from minirelu.death.summary import lives_of

    history = History.of(run_with_history)
    _, low, high, back = lives_of(history, 0).deaths
    unit = lives_of(history, 0).deaths.unit[back >= 0][0]
    first = lives_of(history, 0).deaths.unit.tolist().index(unit)
    low, high, back = (history.steps[column[first]] for column in (low, high, back))

    show(browser, write_report(run_with_history), width)
    search = css(browser, "#units-search")[0]
    search.send_keys(str(unit))
    browser.execute_script("arguments[0].click()", css(browser, "#units-table .unit button")[0])
    (detail,) = [d for d in css(browser, "#units-table .detail") if d.is_displayed()]
    assert f"It died between steps {low} and {high}, was on again by step {back}" in detail.text
    _, margin = detail.find_elements("css selector", "svg.timeline")
    assert len(margin.find_elements("css selector", "circle")) == len(history.steps)
    n_deaths = int((lives_of(history, 0).deaths.unit == unit).sum())
    assert len(margin.find_elements("css selector", "rect")) == n_deaths
    assert overflowing(browser) == []
    check_console(browser)


def overflowing(browser) -> list[str]:
    """What sticks out at the right."""
    return browser.execute_script(
        """return [document.documentElement, ...document.querySelectorAll("body *")]
        .filter(e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth)
        .map(e => e.outerHTML.slice(0, 100))"""
    )


def test_nothing_overflows_on_a_phone(browser, page):
    show(browser, page, width=360)
    assert browser.execute_script("return innerWidth") == 360
    for button in css(browser, "#units-table .unit button")[:3]:
        browser.execute_script("arguments[0].click()", button)
    assert css(browser, ".detail svg")
    assert overflowing(browser) == []
    check_console(browser)


def test_tokens_that_are_tags_are_shown_as_text(browser, finished_run, tmp_path, monkeypatch):
    decode = Tokenizer.decode
    tag = "</script><script>document.title='owned'</script><!--<script>"
    monkeypatch.setattr(
        Tokenizer, "decode", lambda self, ids: decode(self, ids) + tag * (len(ids) == 1)
    )
    run = mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "copy"))
    show(browser, write_report(run))
    assert len(css(browser, "script")) == 2 and browser.title != "owned"
    assert tag in css(browser, "#units-table .unit td.tokens")[0].text
    check_console(browser)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "hostile.txt"
    file.write_text(HOSTILE * 300, encoding="utf-8")
    run = create_run(quick_settings(file), folder / "run <script>")
    mr.train(run)
    return write_report(run)


@pytest.mark.parametrize("width", [1200, 360])
def test_hostile_text_is_shown_as_text(browser, hostile_page, width):
    show(browser, hostile_page, width)
    title = browser.title
    for button in css(browser, "#units-table .unit button"):
        browser.execute_script("arguments[0].click()", button)
    shown = " ".join(pre.text for pre in css(browser, ".contexts pre"))
    assert "</script>" in shown and "<img" in shown and "&lt;" in shown and r"\x1b" in shown
    assert "\u202e" not in shown and browser.title == title != "owned"
    assert css(browser, "img[src=x]") == [] and len(css(browser, "script")) == 2
    assert overflowing(browser) == []
    check_console(browser)


def test_without_scripts_the_rest_of_the_page_is_there(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        text = css(browser, "body")[0].text
        assert "needs JavaScript" in text and "What it writes" in text
        assert not css(browser, "#units-app")[0].is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
