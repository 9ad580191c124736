"""What a reader does, in a real browser on the real server: looking, keys, comparing, finding an image."""

from __future__ import annotations

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
    f"/flights/{FLIGHT}/export",
    "/search",
    "/references",
    "/compare",
    "/rotation",
    "/no",
]


@pytest.mark.parametrize(("width", "scheme", "language"), [(1440, "light", "en"), (390, "dark", "ko")])
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
