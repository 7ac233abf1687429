"""The report in a real browser: offline, at a laptop's and a phone's width."""

import pytest
from chromium import FOUND, browse
from stores import store_in
from written import write_study

from pti_pipeline.report.page import page
from pti_pipeline.steps.report import gather
from pti_pipeline.tracking.find import get_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not FOUND, reason="no Chromium: run scripts/install_browser.sh"),
]
WIDTHS = (1280, 390)
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
)
VISIBLE = "[...document.querySelectorAll('#{} .stop')].filter(s => s.checkVisibility()).length"
CURSOR = "document.querySelector('#{} .cursor').getBoundingClientRect().x"
THUMB = "document.querySelector('#{} input').value"
SHOWN = "document.querySelector('#{} .stop.on img').src"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A study as a page, and one whose names want to take the page over."""
    folder = tmp_path_factory.mktemp("pages")
    with store_in(folder):
        for name, changes in {"study": {"twins": True}, "hostile": {"token": HOSTILE}}.items():
            study = gather(get_run(write_study(**changes)), folder / "grids")
            (folder / f"{name}.html").write_text(page(study), encoding="utf-8")
        yield folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browse(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["study", "hostile"])
def test_it_opens_offline_without_errors_and_fits(files, tab, name, width):
    tab.trouble.clear()
    tab.open(files / f"{name}.html", width)
    root = "document.documentElement"
    assert tab.evaluate(f"{root}.clientWidth") == width
    assert tab.evaluate(f"{root}.scrollWidth") <= width
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.title") != "taken"
    assert tab.trouble == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_keys_move_picture_and_marker_together(files, tab, stage, width):
    tab.open(files / "study.html", width)
    assert tab.evaluate(VISIBLE.format(stage)) == 1
    assert "chosen" in tab.evaluate(f"document.querySelector('#{stage} .stop.on').className")
    tab.evaluate(f"document.querySelector('#{stage} input').focus()")
    seen = []
    tab.press("Home", 36)
    for _ in range(7):  # six grids: the last key finds nothing further
        state = [tab.evaluate(code.format(stage)) for code in (SHOWN, CURSOR, THUMB)]
        seen.append((*state, tab.evaluate(VISIBLE.format(stage))))
        tab.press("ArrowRight", 39)
    pictures, cursors, thumbs, counts = zip(*seen, strict=True)
    assert len(set(pictures)) == 6 and pictures[-1] == pictures[-2]
    assert list(cursors) == sorted(cursors) and len(set(cursors)) == 6
    assert len(set(thumbs)) == 6 and set(counts) == {1}
    told = tab.evaluate(f"document.querySelector('#{stage} input').getAttribute('aria-valuetext')")
    assert told.startswith("lr 0.01, step 20, distance")
    tab.press("ArrowLeft", 37)
    assert tab.evaluate(SHOWN.format(stage)) == pictures[-3]


def test_a_drag_shows_the_nearest_grid_and_the_thumb_stands_under_the_marker(files, tab):
    tab.open(files / "study.html", 1280)
    slider = "document.querySelector('#invert input')"
    tab.evaluate(f"{slider}.scrollIntoView({{block: 'center'}})")
    box = tab.evaluate(f"(b => [b.x, b.y, b.width, b.height])({slider}.getBoundingClientRect())")
    place = {"x": box[0] + 0.93 * box[2], "y": box[1] + box[3] / 2}
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
    assert "lr 0.01, step 20" in tab.evaluate(
        "document.querySelector('#invert .stop.on').innerText"
    )
    thumb = box[0] + 10 + (box[2] - 20) * float(tab.evaluate(THUMB.format("invert"))) / 1000
    assert tab.evaluate(CURSOR.format("invert")) == pytest.approx(thumb, abs=2)


def test_a_click_on_a_point_shows_its_samples(files, tab):
    tab.open(files / "study.html", 1280)
    point = "document.querySelector('#invert .point.s0[data-run]')"
    tab.evaluate(f"{point}.dispatchEvent(new MouseEvent('click'))")
    assert "lr 0.001, step 20" in tab.evaluate(
        "document.querySelector('#invert .stop.on').innerText"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_without_scripts_everything_is_shown(files, tab, width):
    tab.open(files / "study.html", width, scripts=False)
    assert tab.evaluate(VISIBLE.format("invert")) == 6
    assert not tab.evaluate("document.querySelector('#invert input').checkVisibility()")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_is_dark_and_text_stands_out_in_both(files, tab):
    luminance = """(color => {
      const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b; })"""
    pages = {}
    for dark in (False, True):
        tab.open(files / "study.html", 1280, dark=dark)
        ground = tab.evaluate(f"{luminance}(getComputedStyle(document.body).backgroundColor)")
        for place in ("body", ".note", ".legend", "th", "tr.chosen em"):
            style = f"getComputedStyle(document.querySelector('{place}')).color"
            text = tab.evaluate(f"{luminance}({style})")
            light, deep = max(text, ground), min(text, ground)
            assert (light + 0.05) / (deep + 0.05) >= 4.5, (place, dark)  # WCAG 2.2, AA
        pages[dark] = ground
    assert pages[True] < 0.05 < 0.9 < pages[False]
