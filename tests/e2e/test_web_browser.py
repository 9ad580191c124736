"""What a reader does, in a real browser on the real server: looking, keys, comparing, finding an image."""

from __future__ import annotations

import math
import re

import pytest

FLIGHT = "251124155712"


# --- from the flights to a comparison, without a mouse ------------------------------------------


def test_the_keyboard_alone_leads_from_the_flights_to_a_blink_comparison(page, server):
    page.goto(server("/"))
    link = page.get_by_role("link", name=FLIGHT)
    while not link.evaluate("one => one === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/flights/{FLIGHT}")
    page.locator(".film a.at").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/flights/{FLIGHT}/\d+"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("3")
    assert page.locator("#compare").is_visible()
    page.keyboard.press("b")
    page.wait_for_function("() => document.querySelector('#compare').dataset.view === 'blink'")
    page.wait_for_function("() => document.querySelector('#compare').classList.contains('query-on-top')")
    page.wait_for_function("() => !document.querySelector('#compare').classList.contains('query-on-top')")
    assert "rank=3" in page.url and "view=blink" in page.url and "model=vits16%2B" in page.url
    page.keyboard.press("Escape")
    page.wait_for_url(lambda address: "rank" not in address)
    assert not page.locator("#compare").is_visible()


def test_what_the_address_says_is_shown_again(page, server):
    page.goto(server(f"/flights/{FLIGHT}/3?model=vitb16&rank=4&view=blend"))
    assert page.locator("#compare").is_visible()
    assert page.locator(".compare-model").inner_text() == "vitb16"
    assert page.locator(".compare-hit").inner_text().startswith("rank 4,")
    assert page.locator(".opacity").is_visible()


def test_arrows_walk_the_frames_without_loading_a_page(page, server):
    page.goto(server(f"/flights/{FLIGHT}/3"))
    page.evaluate("window.stayed = true")
    page.wait_for_load_state("networkidle")
    for key, frame in (("ArrowRight", 4), ("ArrowRight", 5), ("ArrowLeft", 4)):
        page.keyboard.press(key)
        page.wait_for_function(f"() => document.querySelector('h1').textContent.includes('{frame}')")
    assert page.url.endswith(f"/flights/{FLIGHT}/4") and page.evaluate("window.stayed")
    page.go_back()
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('5')")


def test_slash_jumps_to_a_frame_and_question_mark_helps(page, server):
    page.goto(server(f"/flights/{FLIGHT}/3"))
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("11")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('11')")


def test_a_comparison_stays_open_from_frame_to_frame(page, server):
    page.goto(server(f"/flights/{FLIGHT}/3?model=vitb16&rank=2"))
    before = page.locator(".tile-image").get_attribute("src")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('4')")
    assert page.locator("#compare").is_visible()
    assert page.locator(".tile-image").get_attribute("src") != before


# --- the map ------------------------------------------------------------------------------------


def test_hovering_a_frame_lays_its_best_tile_in_its_place_on_the_map(page, server):
    page.goto(server(f"/flights/{FLIGHT}"))
    page.locator(".film a.at").wait_for()
    laid = page.locator(".layer-laid image")
    before = laid.get_attribute("href")
    page.locator('.film a[data-frame="5"]').hover()
    page.wait_for_function(f"() => document.querySelector('.layer-laid image').getAttribute('href') !== {before!r}")
    best = page.request.get(server(f"/flights/{FLIGHT}.json")).json()["frames"][4]["best"]
    assert laid.get_attribute("href") == best["image"]
    assert laid.get_attribute("transform").startswith(f"rotate({best['angle_deg']:g} ")
    assert page.locator(".peek h2").inner_text() == "Frame 5"


def test_the_map_shows_the_ground_and_zooms(page, server):
    page.goto(server(f"/flights/{FLIGHT}"))
    page.locator(".film a.at").wait_for()
    ground = page.locator(".layer-ground > image").get_attribute("href")
    assert page.request.get(server(ground)).headers["content-type"] == "image/jpeg"
    before = page.locator(".map-svg").get_attribute("viewBox")
    for _ in range(4):
        page.locator('[data-map="in"]').click()
    assert page.locator(".map-svg").get_attribute("viewBox") != before
    page.wait_for_function("() => document.querySelectorAll('.layer-ground g image').length > 0")


# --- fixes --------------------------------------------------------------------------------------

MATCHED, UNMATCHED, UNVERIFIED = 3, 4, 5  # frames of the sample

CORNERS_BY_MAP = """(facts) => {
  const svg = document.querySelector('.fix .map-svg');
  const turned = svg.getScreenCTM();
  const per = facts.map.metres_per_degree;
  return facts.corners.map(([lon, lat]) => {
    const at = new DOMPoint((lon - facts.map.origin.lon) * per.lon, (facts.map.origin.lat - lat) * per.lat);
    const { x, y } = at.matrixTransform(turned);
    return [x, y];
  });
}"""
CORNERS_OF_PICTURE = """() => {
  const picture = document.querySelector('.fix-picture');
  const holder = picture.parentElement.getBoundingClientRect();
  const edge = picture.parentElement.clientLeft;
  const matrix = new DOMMatrix(getComputedStyle(picture).transform);
  const [width, height] = [picture.offsetWidth, picture.offsetHeight];
  return [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => {
    const at = new DOMPoint(x, y).matrixTransform(matrix);
    return [holder.left + edge + at.x / at.w, holder.top + edge + at.y / at.w];
  });
}"""
SETTLED = "() => document.querySelector('.fix-picture')?.style.transform.startsWith('matrix3d')"


def fix_of(page, server, frame, backbone="vitl16sat"):
    rows = page.request.get(server(f"/flights/{FLIGHT}/{frame}.json")).json()["rows"]
    return next(row for row in rows if row["backbone"] == backbone)


def corners_apart_px(page, row):
    """Of each corner of the laid picture, from where the map has the corner's longitude and latitude."""
    by_map = page.evaluate(CORNERS_BY_MAP, {"corners": row["fix"]["corners"], "map": row["fix_map"]})
    return [math.dist(*pair) for pair in zip(by_map, page.evaluate(CORNERS_OF_PICTURE), strict=True)]


def test_the_frame_lies_on_the_map_by_its_four_corners_at_any_zoom_and_size(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    row = fix_of(page, server, MATCHED)
    assert max(corners_apart_px(page, row)) < 2.0
    page.locator('.fix [data-map="out"]').click()
    assert max(corners_apart_px(page, row)) < 2.0
    page.mouse.move(700, 300)
    page.mouse.down()
    page.mouse.move(760, 340)
    page.mouse.up()
    assert max(corners_apart_px(page, row)) < 2.0
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_function("() => document.querySelector('.fix .map-svg').clientWidth < 900")
    page.wait_for_timeout(100)
    assert max(corners_apart_px(page, row)) < 2.0


def test_ellipses_truth_and_the_next_best_place_are_drawn_where_they_are(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    fix = fix_of(page, server, MATCHED)["fix"]
    ellipses = page.locator(".map-over ellipse")
    drawn = sorted(float(ellipses.nth(at).get_attribute("rx")) for at in range(ellipses.count()))
    assert drawn == pytest.approx(sorted(fix[name]["ellipse_95"]["major_m"] for name in ("ground", "aircraft")))
    assert page.locator(".map-over .runner-up").count() == page.locator(".map-over .error-line").count() == 1
    assert page.locator('.fix [data-value="runner-up"]:visible').inner_text() == "500 m ↖"


def test_the_keyboard_changes_the_frames_opacity_which_stays_from_frame_to_frame(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    page.wait_for_load_state("networkidle")
    slider = page.get_by_label("Frame's opacity")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".fix-picture").evaluate("one => getComputedStyle(one).opacity") == "0"
    page.keyboard.press("ArrowRight")
    assert page.locator(".fix-picture").evaluate("one => getComputedStyle(one).opacity") == "0.01"
    assert page.locator("h1").inner_text() == f"Frame {MATCHED}", "the arrow was the slider's"
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => document.querySelector('h1').textContent.includes('{MATCHED - 1}')")
    page.wait_for_function(SETTLED)
    assert page.locator(".fix-picture").evaluate("one => one.style.opacity") == "0.01"


def test_a_frame_without_a_match_is_laid_nowhere(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{UNMATCHED}?model=vitl16sat"))
    page.wait_for_load_state("networkidle")
    assert page.locator(".fix-facts:visible .fix-badge").inner_text() == "no match: ambiguous"
    assert not page.locator(".fix-ground").is_visible() and page.locator(".fix-picture").count() == 0
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(SETTLED)
    assert max(corners_apart_px(page, fix_of(page, server, MATCHED))) < 2.0


def test_another_backbones_fix_is_shown_when_it_is_chosen(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    page.keyboard.press("ArrowDown")
    page.wait_for_url("**model=vith16%2B**")
    assert page.locator(".fix-facts:visible").get_attribute("data-model") == "vith16+"
    assert page.locator(".map-over ellipse").count() == 2


def test_a_flights_map_draws_ellipses_marks_no_match_and_shows_best_tiles_when_asked(page, server):
    page.goto(server(f"/flights/{FLIGHT}?model=vitl16sat"))
    page.locator(".film a.at").wait_for()
    assert page.locator(".layer-lines .ellipse").count() == page.locator(".layer-points .fix").count() == 8
    assert page.locator(".layer-points .no-match").count() == 2
    coarse = page.locator(".layer-points .coarse")
    assert coarse.count() == 10 and not coarse.first.is_visible(), "of frames that match, or were not verified"
    page.get_by_role("button", name="Best tiles").click()
    assert coarse.first.is_visible()
    page.locator(f'.film a[data-frame="{UNMATCHED}"]').hover()
    page.wait_for_function(f"() => document.querySelector('.peek h2').textContent.includes('{UNMATCHED}')")
    assert page.locator(".layer-laid *").count() == 0 and page.locator(".peek-unconfirmed").is_visible()
    page.locator(f'.film a[data-frame="{MATCHED}"]').hover()
    page.wait_for_function("() => document.querySelector('.layer-laid .frame-edge')")


# --- finding an image ---------------------------------------------------------------------------


def test_an_uploaded_picture_is_found_at_its_place_and_heading(page, server):
    page.goto(server("/search?reference-set=drawn-200m&model=tiny"))
    page.set_input_files(".drop input[type=file]", server.data_dir / "query.png")
    page.locator(".hit").first.wait_for(timeout=60_000)
    best = page.locator(".hit img").first.get_attribute("alt")
    assert best.startswith("rank 1, 1.0000, heading 90")
    assert page.locator(".by").inner_text() == "exact · FAISS"
    assert "image=" in page.url


def test_a_facet_is_answered_by_qdrant_and_counts_what_it_leaves(page, server):
    page.goto(server("/search?reference-set=drawn-200m&model=tiny"))
    page.set_input_files(".drop input[type=file]", server.data_dir / "query.png")
    page.locator(".hit").first.wait_for(timeout=60_000)
    page.locator(".facet label", has_text="180°").click()
    page.wait_for_url("**angle=180**")
    page.wait_for_function("() => document.querySelector('.by').textContent.includes('Qdrant')")
    headings = page.locator(".hit .badge").all_inner_texts()
    assert headings and set(headings) == {"180°"}


def test_a_text_file_is_refused_beside_the_button_and_the_page_stays(page, server, tmp_path):
    fake = tmp_path / "notes.jpg"
    fake.write_text("not an image at all")
    page.goto(server("/search"))
    page.set_input_files(".drop input[type=file]", fake)
    page.locator("#upload-problem:not([hidden])").wait_for()
    assert "not a JPEG" in page.locator("#upload-problem").inner_text()
    page.broken.clear()  # the browser logs the 415


def test_bounds_drawn_on_the_map_become_a_filter(page, server):
    page.goto(server("/search?reference-set=drawn-200m&model=tiny"))
    page.locator(".map.ready").wait_for()
    page.locator('[data-map="draw"]').click()
    box = page.locator(".map-svg").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 40)
    page.mouse.up()
    page.wait_for_url("**bbox=**")
    page.locator(".layer-drawn rect").wait_for(state="attached")


# --- every page, every face ---------------------------------------------------------------------

PAGES = [
    "/",
    f"/flights/{FLIGHT}",
    f"/flights/{FLIGHT}/3",
    f"/flights/{FLIGHT}/{UNMATCHED}?model=vitl16sat",
    f"/flights/{FLIGHT}?method=fix",
    f"/flights/{FLIGHT}/{MATCHED}?method=fix&model=vits16",
    f"/flights/{FLIGHT}/export",
    "/search",
    "/references",
    "/compare",
    "/rotation",
    "/no",
]


@pytest.mark.parametrize(
    ("width", "scheme", "language"), [(1440, "light", "en"), (820, "light", "en"), (390, "dark", "ko")]
)
def test_every_page_fits_its_window_and_shows_all_its_pictures(browser, server, tmp_path, width, scheme, language):
    context = browser.new_context(
        viewport={"width": width, "height": 850}, color_scheme=scheme, locale=language, reduced_motion="reduce"
    )
    page = context.new_page()
    for number, path in enumerate(PAGES):
        page.goto(server(path), wait_until="load")
        page.wait_for_function("() => [...document.images].every(one => one.complete || one.loading === 'lazy')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} sticks out at the side"
        broken = "[...document.images].filter(one => one.complete && one.src && !one.naturalWidth).map(one => one.src)"
        assert page.evaluate(broken) == [], path
        assert page.evaluate("document.documentElement.lang") == language, path
        assert len(page.screenshot(path=tmp_path / f"{number}.png")) > 5_000, path
    context.close()


def test_pages_work_without_scripts(browser, server):
    context = browser.new_context(java_script_enabled=False, locale="en")
    page = context.new_page()
    page.goto(server(f"/flights/{FLIGHT}/3"))
    page.locator(".hit").nth(2).click()
    assert page.locator("#compare .tile-image").get_attribute("src").startswith("/images/results/")
    page.get_by_role("link", name="Next frame").click()
    assert "Frame 4" in page.locator("h1").inner_text()
    context.close()
