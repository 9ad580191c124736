"""What a reader does, in a real browser on the real server: looking, keys, comparing, finding an image."""

from __future__ import annotations

import math
import re

import pytest
from asking import wait_until

FLIGHT = "251124155712"


# --- from the flights to a comparison, without a mouse ------------------------------------------


def test_the_keyboard_alone_leads_from_the_flights_to_a_blink_comparison(page, server):
    page.goto(server("/"))
    link = page.locator("a.card-link", has_text=FLIGHT)
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


def test_arrows_walk_the_frames_without_loading_a_page_and_the_last_one_pressed_counts(page, server):
    held = []
    page.route(re.compile(rf"/flights/{FLIGHT}/6$"), lambda route: held.append(route), times=1)
    page.goto(server(f"/flights/{FLIGHT}/3"))
    page.evaluate("window.stayed = true")
    for keys, frame in ((["ArrowRight"], 4), (["ArrowRight"], 5), (["ArrowRight", "ArrowLeft"], 4)):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function(f"() => document.querySelector('h1').textContent.includes('{frame}')")
    with page.expect_response(re.compile(rf"/flights/{FLIGHT}/6$")) as late:
        held[0].continue_()
    late.value.finished()
    page.evaluate("fetch(location.href).then((answer) => answer.text())")  # which comes after the late one
    assert page.locator("h1").inner_text() == "Frame 4"
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
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('4')")
    assert page.locator("#compare").is_visible()
    assert page.locator(".tile-image").get_attribute("src") != before


# --- the map ------------------------------------------------------------------------------------


# With the first frame in the panel, which moves what lies below it.
READY = "() => document.querySelector('.flight-data')?.dataset.ready && !document.querySelector('.peek').hidden"
FEATURES = "(name) => document.querySelector('.map').map.layers[name].source.getFeatures().length"
SHOWN = "(name) => document.querySelector('.map').map.layers[name].layer.getVisible()"


def test_hovering_a_frame_lays_its_best_tile_in_its_place_on_the_map(page, server):
    page.goto(server(f"/flights/{FLIGHT}"))
    page.wait_for_function(READY)
    laid = page.locator(".map-pictures .laid")
    before = laid.get_attribute("src")
    page.locator('.film a[data-frame="5"]').hover()
    page.wait_for_function(
        f"() => !['', null, {before!r}].includes(document.querySelector('.map-pictures .laid')?.getAttribute('src'))"
    )
    best = page.request.get(server(f"/flights/{FLIGHT}.json")).json()["frames"][4]["best"]
    assert laid.get_attribute("src") == best["image"]
    page.wait_for_function("() => document.querySelector('.map-pictures .laid').style.transform.startsWith('matrix3d')")
    upper = page.evaluate("""() => {
      const matrix = new DOMMatrix(document.querySelector('.map-pictures .laid').style.transform);
      return Math.atan2(matrix.m12, matrix.m11) * 180 / Math.PI;
    }""")
    assert (upper - best["angle_deg"] + 180) % 360 - 180 == pytest.approx(0, abs=0.5), (
        "its upper edge faces its heading"
    )
    assert page.locator(".peek h2").inner_text() == "Frame 5"
    page.wait_for_url("**frame=5**")


def test_the_map_shows_the_ground_and_zooms(page, server):
    tiles = []  # from the first: a small area has its finest tiles before the first zoom
    page.on("response", lambda answer: "/tiles/" in answer.url and tiles.append((answer.status, answer.url)))
    with page.expect_response("**/tiles/**"):
        page.goto(server(f"/flights/{FLIGHT}"))
    page.wait_for_function(READY)
    before = page.evaluate("document.querySelector('.map').map.metresPerPixel()")
    box = page.locator(".map-view").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.wait_for_function("() => document.querySelector('.map-position').textContent.includes('EPSG:32652')")
    page.mouse.wheel(0, -400)  # at once, without a click into the map
    page.wait_for_function(f"() => document.querySelector('.map').map.metresPerPixel() < {before}")
    page.wait_for_function("() => !document.querySelector('.map').map.view.getAnimating()")
    nearer = page.evaluate("document.querySelector('.map').map.metresPerPixel()")
    page.locator('[data-map="in"]').click()
    page.locator(".map-view").focus()
    page.keyboard.press("+")
    page.wait_for_function(f"() => document.querySelector('.map').map.metresPerPixel() < {0.5 * nearer}")
    assert {status for status, _url in tiles} == {200}
    ground = page.request.get(tiles[-1][1])
    assert ground.headers["content-type"] == "image/webp" and "etag" in ground.headers
    page.keyboard.press("Home")
    page.wait_for_function(f"() => document.querySelector('.map').map.metresPerPixel() > {0.5 * before}")


def test_the_address_brings_back_frame_range_and_figure(page, server):
    page.goto(server(f"/flights/{FLIGHT}?model=vitl16sat"))
    page.wait_for_function(READY)
    page.keyboard.press("w")
    page.wait_for_url("**frame=4**")  # the first without a match
    page.keyboard.press("/")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    page.wait_for_url("**frame=7**")
    page.locator(".axis-metric").select_option("probability")
    page.wait_for_url("**metric=probability**")
    chart = page.locator(".axis-chart .u-over").bounding_box()
    page.mouse.move(chart["x"] + 0.3 * chart["width"], chart["y"] + 40)
    page.mouse.down()
    page.mouse.move(chart["x"] + 0.8 * chart["width"], chart["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url("**t=*")
    page.mouse.move(0, 0)  # else it may rest on a frame of the page that comes, which is a choice
    page.reload()
    page.wait_for_function(READY)
    page.locator(".axis-all:not([hidden])").wait_for()
    assert page.locator(".axis-metric").input_value() == "probability"
    assert page.locator(".film a.at").get_attribute("data-frame") == "7"
    assert 0 < page.locator(".film a.beside").count() < 12
    page.locator(".peek h2", has_text="Frame 7").wait_for()


# --- fixes --------------------------------------------------------------------------------------

MATCHED, UNMATCHED, UNVERIFIED = 3, 4, 5  # frames of the sample

CORNERS = """(corners) => {
  const { chart, place, screen } = document.querySelector('.fix .map').map;
  chart.renderSync(); // the map and the picture as they are at one moment
  const { left, top } = place.getBoundingClientRect();
  const picture = document.querySelector('.fix-picture');
  const matrix = new DOMMatrix(getComputedStyle(picture).transform);
  const [width, height] = [picture.offsetWidth, picture.offsetHeight];
  const holder = picture.parentElement.getBoundingClientRect();
  return [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y], corner) => {
    const at = new DOMPoint(x, y).matrixTransform(matrix);
    const [onMapX, onMapY] = screen(corners[corner]);
    return [[left + onMapX, top + onMapY], [holder.left + at.x / at.w, holder.top + at.y / at.w]];
  });
}"""
# Until the page's JSON has come, and what waits for it has run.
SHOWN_BY_ITS_TWIN = """() => import(new URL('walk.js', document.querySelector('script[src*="/frame.js"]').src))
  .then(({ twin }) => twin()).then(() => null)"""
SETTLED = "() => document.querySelector('.fix-picture')?.style.transform.startsWith('matrix3d')"


def fix_of(page, server, frame, backbone="vitl16sat"):
    rows = page.request.get(server(f"/flights/{FLIGHT}/{frame}.json")).json()["rows"]
    return next(row for row in rows if row["backbone"] == backbone)


def corners_apart_px(page, row):
    """Of each corner of the laid picture, from where the map has the corner's longitude and latitude."""
    return [math.dist(*pair) for pair in page.evaluate(CORNERS, row["fix"]["corners"])]


def view_of_fix(page):
    """The map's centre and resolution."""
    return page.evaluate(
        "(() => { const { view } = document.querySelector('.fix .map').map;"
        " return [...view.getCenter(), view.getResolution()]; })()"
    )


def wait_for_another_view(page, before):
    page.wait_for_function(
        """(before) => {
          const { view } = document.querySelector('.fix .map').map;
          const now = [...view.getCenter(), view.getResolution()];
          return now.some((value, i) => value !== before[i]) && !view.getAnimating() && !view.getInteracting();
        }""",
        arg=before,
    )


def test_the_frame_lies_on_the_map_by_its_four_corners_at_any_zoom_and_size(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    row = fix_of(page, server, MATCHED)
    assert max(corners_apart_px(page, row)) < 2.0
    before = view_of_fix(page)
    page.locator('.fix [data-map="out"]').click()
    wait_for_another_view(page, before)
    assert max(corners_apart_px(page, row)) < 2.0
    before, box = view_of_fix(page), page.locator(".fix .map-view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    wait_for_another_view(page, before)
    assert max(corners_apart_px(page, row)) < 2.0
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_function(
        "() => { const { chart, place } = document.querySelector('.fix .map').map;"
        " return place.clientWidth < 900 && chart.getSize()[0] === place.clientWidth; }"
    )
    assert max(corners_apart_px(page, row)) < 2.0


def test_ellipses_truth_and_the_next_best_place_are_drawn_where_they_are(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
    fix = fix_of(page, server, MATCHED)["fix"]
    drawn = page.evaluate("""() => {
      const { layers, stretch, at } = document.querySelector('.fix .map').map;
      return layers.ellipses.source.getFeatures().map((one) => {
        const ring = one.getGeometry().getCoordinates()[0], [left, bottom, right, top] = one.getGeometry().getExtent();
        const middle = [(left + right) / 2, (bottom + top) / 2];
        return Math.max(...ring.map((point) => Math.hypot(point[0] - middle[0], point[1] - middle[1]))) / stretch;
      });
    }""")
    expected = sorted(fix[name]["ellipse_95"]["major_m"] for name in ("ground", "aircraft"))
    assert sorted(drawn) == pytest.approx(expected, rel=0.01)
    kinds = page.evaluate("""() => document.querySelector('.fix .map').map.layers.points.source.getFeatures()
      .map((one) => one.get('kind'))""")
    assert sorted(kinds) == ["fix", "ground-point", "runner-up", "truth"]
    assert page.evaluate("document.querySelector('.fix .map').map.layers.errors.source.getFeatures().length") == 1
    assert page.locator('.fix [data-value="runner-up"]:visible').inner_text() == "500 m ↖"


def test_the_keyboard_changes_the_frames_opacity_which_stays_from_frame_to_frame(page, server):
    page.goto(server(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat"))
    page.wait_for_function(SETTLED)
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
    page.evaluate(SHOWN_BY_ITS_TWIN)
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
    assert page.evaluate("document.querySelector('.fix .map').map.layers.ellipses.source.getFeatures().length") == 2


def test_a_flights_map_draws_ellipses_marks_no_match_and_shows_best_tiles_when_asked(page, server):
    page.goto(server(f"/flights/{FLIGHT}?model=vitl16sat"))
    page.wait_for_function(READY)
    assert page.evaluate(FEATURES, "ellipses") == page.evaluate(FEATURES, "fix") == 8
    kinds = page.evaluate("""() => document.querySelector('.map').map.layers.frames.source.getFeatures()
      .map((one) => one.get('kind'))""")
    assert kinds.count("no-match") == 2
    assert not page.evaluate(SHOWN, "best-place")
    page.get_by_role("button", name="Best tiles").click()
    page.wait_for_function(f"() => ({SHOWN})('best-place')")
    assert page.evaluate(FEATURES, "best-place") == 10, "of frames that match, or were not verified"
    page.locator(f'.film a[data-frame="{UNMATCHED}"]').hover()
    page.wait_for_function(f"() => document.querySelector('.peek h2').textContent.includes('{UNMATCHED}')")
    assert page.locator(".map-pictures .laid").count() == page.evaluate(FEATURES, "frame") == 0
    assert page.locator(".peek-unconfirmed").is_visible()
    page.locator(f'.film a[data-frame="{MATCHED}"]').hover()
    page.wait_for_function(f"() => ({FEATURES})('frame') > 0")
    page.locator(".map-layers summary").click()
    page.get_by_label("Fixes").uncheck()
    assert not page.evaluate(SHOWN, "fix")


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
    wait_until(lambda: page.request.get(server("/readyz")).json()["checks"]["vectors"]["status"] == "ok", 60)
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
    box = page.locator(".map-view").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 40)
    page.mouse.up()
    page.wait_for_url("**bbox=**")
    page.wait_for_function("() => document.querySelector('.map').map?.layers.drawn?.source.getFeatures().length === 1")


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


# --- comparing backbones ------------------------------------------------------------------------


POINT_OF = """(over, label) => {
  const { left, top, width, height } = over.getBoundingClientRect();
  const note = over.closest(".panel").querySelector(".panel-note");
  const near = [];
  for (let x = 4; x < width; x += 4) for (let y = 4; y < height; y += 4) {
    over.dispatchEvent(new MouseEvent("mousemove", { clientX: left + x, clientY: top + y }));
    if (note.textContent.startsWith(label)) near.push([x, y]);
  }
  const middle = (part) => near.reduce((sum, place) => sum + place[part], 0) / near.length;
  return { x: middle(0), y: middle(1) };
}"""


def test_a_point_of_a_chart_leads_to_its_frame_by_the_keyboard_and_by_the_mouse(page, server):
    page.goto(server("/compare"))
    page.locator("#error").scroll_into_view_if_needed()
    panel = page.locator("#error .panel")
    panel.wait_for()
    assert page.locator("#error > picture").is_hidden()
    panel.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    note = panel.locator(".panel-note").inner_text()
    named = re.match(r"vits16\+ · Frame (\d+) · top-1 error, m [\d.,]+", note)
    assert named, note
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/flights/{FLIGHT}/{named[1]}\?.*model=vits16%2B"))
    page.go_back()
    page.locator("#speed-and-accuracy").scroll_into_view_if_needed()
    panel = page.locator("#speed-and-accuracy .panel")
    panel.wait_for()
    over = panel.locator(".u-over")
    for _ in range(100):  # charts above it move it as they come
        position = over.evaluate(POINT_OF, "vitl16sat")
        over.hover(position=position)
        if panel.locator(".panel-note").inner_text().startswith("vitl16sat · "):
            break
    else:
        pytest.fail("the pointer on the backbone's point does not name it")
    over.click(position=position)
    page.wait_for_url(re.compile(rf"/flights/{FLIGHT}\?.*model=vitl16sat"))


def test_the_table_of_backbones_is_sorted_by_the_column_that_is_clicked(page, server):
    page.goto(server("/compare"))
    names = page.locator("table.sorts tbody th a")
    page.get_by_role("button", name="total ms").click()
    rising = names.all_inner_texts()
    page.get_by_role("button", name="total ms").click()
    assert rising[0] == "vits16" and names.all_inner_texts() == rising[::-1]
