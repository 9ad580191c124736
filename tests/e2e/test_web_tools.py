"""The gallery, a measured line and a flight that is played, in a real browser on the real server."""

from __future__ import annotations

import pytest

FLIGHT = "251124155712"


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


def test_a_measured_line_says_its_length_and_escape_takes_it_away(page, server):
    page.goto(server(f"/flights/{FLIGHT}"))
    page.wait_for_function("() => document.querySelector('.map').map")
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
    page.locator(".axis-chart canvas").wait_for()
    page.locator(".axis-play").click()
    page.wait_for_function("() => Number(new URLSearchParams(location.search).get('frame')) >= 2")
    page.locator(".axis-play").click()
    assert page.locator(".axis-play").get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(600)  # the address follows the frame after a moment
    stopped = page.url
    page.wait_for_timeout(600)
    assert page.url == stopped
