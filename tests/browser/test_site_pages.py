"""The documentation's site in a real browser: offline, at a laptop's and a phone's width."""

import pytest
from chromium import FOUND, browse

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND, reason="no Chromium: run scripts/install_browser.sh"),
]
PAGES = (
    "docs/index",
    "docs/tutorial/first-character",
    "docs/how-to/compare",
    "docs/reference/options",
    "docs/reference/metrics",
    "docs/reference/api",
    "docs/results/claims",
    "docs/explanation/regularizers",
    "docs/explanation/world",
)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browse(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_offline_without_errors_and_fits(site, tab, page, width):
    tab.trouble.clear()
    tab.open(site / f"{page}.html", width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate("document.images.length && [...document.images].map(i => i.loading = 'eager')")
    tab.wait_for("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.trouble == []


def test_formulas_are_drawn(site, tab):
    """One with a fraction is taller than one without, and none is cut off."""
    tab.open(site / "docs/explanation/regularizers.html", 1280)
    heights = "[...document.querySelectorAll('.formula math')].map(f => f.clientHeight)"
    fraction, line = tab.evaluate(heights)
    assert fraction > 1.3 * line > 10
    room = "[...document.querySelectorAll('.formula')].map(f => f.scrollHeight <= f.clientHeight)"
    assert tab.evaluate(room) == [True, True]


def test_the_doors_stand_side_by_side_on_a_laptop_and_one_under_another_on_a_phone(site, tab):
    tops = "['learn', 'do', 'understand'].map(d => document.getElementById(d).offsetTop)"
    tab.open(site / "docs/index.html", 1280)
    assert len(set(tab.evaluate(tops))) == 1
    tab.open(site / "docs/index.html", 390)
    assert tab.evaluate(tops) == sorted(set(tab.evaluate(tops)))


def test_the_first_address_leads_to_the_first_page(site, tab):
    tab.open(site / "index.html", 1280)
    tab.wait_for("location.pathname.endsWith('/docs/index.html')")


def test_the_search_finds_what_options_are_called(site, tab):
    tab.visit((site / "search.html").as_uri() + "?q=batch-size", "document.body")
    tab.wait_for("document.querySelector('#search-results').innerText.includes('Commands and')")
