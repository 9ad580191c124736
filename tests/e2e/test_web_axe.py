"""Pages held against axe-core, which knows the rules of accessibility (WCAG)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

FLIGHT = "251124155712"
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
PAGES = [
    "/",
    f"/flights/{FLIGHT}",
    f"/flights/{FLIGHT}/3",
    f"/flights/{FLIGHT}/3?model=vitb16&rank=2",
    f"/flights/{FLIGHT}/export",
    "/gallery",
    "/gallery?view=table",
    f"/gallery/pairs?flight={FLIGHT}",
    "/search",
    "/compare",
    "/rotation",
    "/references",
    "/jobs",
    "/live",
    "/no",
]


@pytest.fixture(scope="module")
def axe() -> str:
    named = os.environ.get("COARSELOC_TEST_AXE")
    script = Path(named) if named else AXE
    if not script.is_file():
        pytest.skip("no axe-core: run `make axe`, or name axe.min.js in COARSELOC_TEST_AXE")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "scheme", "language"), [(1440, "light", "en"), (390, "dark", "ko")])
def test_no_page_breaks_a_serious_rule_of_accessibility(browser, server, axe, width, scheme, language):
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        locale=language,
        reduced_motion="reduce",
        bypass_csp=True,  # axe is not the page's own script
    )
    page = context.new_page()
    broken = []
    for path in PAGES:
        page.goto(server(path), wait_until="load")
        page.evaluate(axe)
        violations = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        broken += [
            (path, rule["id"], rule["nodes"][0]["target"], rule["nodes"][0]["failureSummary"])
            for rule in violations
            if rule["impact"] in ("serious", "critical")
        ]
    context.close()
    assert broken == [], json.dumps(broken, indent=1, ensure_ascii=False)


def test_axe_names_a_picture_without_its_text(browser, server, axe):
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(server("/"))
    page.evaluate("document.querySelector('main').append(new Image())")
    page.evaluate(axe)
    violations = page.evaluate("axe.run(document)")["violations"]
    assert [(rule["id"], rule["impact"]) for rule in violations] == [("image-alt", "critical")]
    context.close()
