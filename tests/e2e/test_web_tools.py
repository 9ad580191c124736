"""The gallery, a measured line and a flight that is played, in a real browser on the real server."""

from __future__ import annotations

import pytest

# With the first frame in the panel, which moves what lies below it.
READY = "() => document.querySelector('.flight-data')?.dataset.ready && !document.querySelector('.peek').hidden"
FLIGHT, BLIND_FLIGHT = "251124155712", "251125101500"


def test_a_filtered_gallery_comes_back_from_its_address(page, server):
    page.goto(server("/gallery"))
    page.locator(".asking input[name=model][value=vitl16sat]").click()
    page.wait_for_url("**model=vitl16sat*")
    page.locator("[name=sort]").select_option("-error")
    page.wait_for_url("**sort=-error*")
    rows = "() => [...document.querySelectorAll('a.pair')].map((one) => one.getAttribute('href'))"
    before = page.evaluate(rows)
    assert before and all("vitl16sat" in address for address in before)
    page.reload()
    assert page.evaluate(rows) == before
    assert page.locator(".asking input[name=model][value=vitl16sat]").is_checked()
    page.locator("input[name=pick]").first.check()
    assert "1 picked" in page.locator("#picks strong").inner_text()


def test_tags_on_a_selection_are_found_again_and_a_note_is_written_on_the_flights_panel(page, server):
    page.goto(server(f"/gallery?flight={BLIND_FLIGHT}&model=vits16"))
    page.locator("#picks [value=add]:disabled").last.wait_for()
    for box in page.locator("input[name=pick]").all()[1:3]:
        box.check()
    page.locator("#picks [name=tags]").fill("Glint to-check")
    page.locator("#picks [name=tags]").press("Enter")
    page.locator(".pairs .chip").first.wait_for()
    assert page.url.endswith(f"/gallery?flight={BLIND_FLIGHT}&model=vits16")
    page.locator("#picks strong", has_text="2 picked").wait_for()
    page.locator(".asking input[name=tag][value=glint]").click()
    page.wait_for_url("**tag=glint*")
    page.reload()
    assert page.locator(".pairs li").count() == 2 and page.locator(".pairs .chip").count() == 4
    page.goto(server(f"/flights/{BLIND_FLIGHT}?frame=2"))
    form, status = page.locator(".peek .marks"), page.locator(".peek .marks [role=status]")
    form.locator(".chip").first.wait_for()
    assert form.locator("[name=tags]").input_value() == "glint to-check"
    form.locator("[name=note]").fill("sun <b> on the river")
    page.locator(".film [data-frame='5']").hover()  # the panel stays with what is being written
    assert form.locator("[name=note]").input_value() == "sun <b> on the river"
    form.locator("[name=tags]").fill("a/b")
    form.locator("button").click()
    page.wait_for_function("() => document.querySelector('.peek .marks [role=status]').textContent.includes('no tag')")
    page.broken.clear()  # Chromium logs an answer of 400
    form.locator("[name=tags]").fill("glint")
    held = []
    page.route("**/marks", lambda route: held.append(route), times=1)
    form.locator("button").click()
    form.locator("[name=note]").fill("sun <b> on the river, twice")  # written on while the server takes its time
    while not held:
        page.wait_for_timeout(20)
    with page.expect_response("**/marks") as first:
        held[0].continue_()
    first.value.finished()
    page.evaluate("fetch(location.href).then((answer) => answer.text())")  # which comes after it
    assert form.locator("[name=note]").input_value() == "sun <b> on the river, twice"
    assert status.inner_text() == "Not saved yet"
    form.locator("[name=note]").fill("sun <b> on the river")
    form.locator("button").click()
    page.wait_for_function("() => document.querySelector('.peek .marks .chip').parentElement.children.length === 1")
    assert status.inner_text() == "Saved"
    page.mouse.move(0, 0)  # else it may rest on a frame of the page that comes, which is a choice
    page.reload()
    form.locator(".chip").wait_for()
    assert form.locator("[name=note]").input_value() == "sun <b> on the river"
    page.goto(server(f"/gallery?flight={BLIND_FLIGHT}&tag=glint&model=vits16"))
    assert page.locator(".written").inner_text() == "sun <b> on the river"
    page.locator("[data-pick=all]").click()
    page.locator("#picks [name=tags]").fill("glint, to-check")
    page.locator("#picks [value=remove]").click()
    page.get_by_text("No frame fits").wait_for()


def test_a_measured_line_says_its_length_and_escape_takes_it_away(page, server):
    page.goto(server(f"/flights/{FLIGHT}"))
    page.wait_for_function(READY)
    page.locator("[data-map=measure]").click()
    box = page.locator(".map-view").bounding_box()
    x, y = box["x"] + box["width"] / 2 - 100, box["y"] + box["height"] / 2
    page.mouse.click(x, y)
    page.mouse.move(x + 100, y, steps=4)
    page.mouse.dblclick(x + 200, y)
    value, unit = page.locator(".map-length").inner_text().split(" ")
    metres = page.evaluate("200 * document.querySelector('.map').map.metresPerPixel()")
    assert float(value) * {"m": 1, "km": 1000}[unit] == pytest.approx(metres, rel=0.03)
    page.locator(".map-view").focus()
    page.keyboard.press("Escape")
    assert page.locator(".map-length").inner_text() == ""


def test_play_walks_the_frames_until_it_is_pressed_again(page, server):
    page.goto(server(f"/flights/{FLIGHT}?frame=1"))
    page.wait_for_function(READY)
    page.locator(".axis-speed").select_option("1")
    page.locator(".axis-play").click()
    page.wait_for_function("() => Number(new URLSearchParams(location.search).get('frame')) >= 2")
    page.locator(".axis-play").click()
    assert page.locator(".axis-play").get_attribute("aria-pressed") == "false"
    stopped = int(page.locator(".axis-scrub").input_value())
    page.wait_for_url(f"**frame={stopped + 1}**")  # the address follows the frame after a moment
    page.wait_for_timeout(600)
    assert int(page.locator(".axis-scrub").input_value()) == stopped
