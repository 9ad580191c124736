"""`make audit` claims no more than was asked: pip-audit stands in as a script with canned answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / "tools" / "audit.py")
assert _spec and _spec.loader
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

SOUND = {"name": "one", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "two", "skip_reason": "Dependency not found on PyPI and could not be audited: two (2.0)"}
BROKEN = {"name": "three", "version": "3.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1"]}]}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def go(*reports: dict, services: tuple[str, ...] = ("pypi", "osv")) -> tuple[int, str]:
        answer = tmp_path / "answer.json"
        answer.write_text(json.dumps({"dependencies": reports, "fixes": []}))
        script = tmp_path / "pip-audit"
        online = " ".join(services)
        script.write_text(
            f'#!/bin/sh\ncase " {online} " in *" $4 "*) cat {answer};; *) echo "ConnectionError" >&2; exit 1;; esac\n'
        )
        script.chmod(0o755)
        monkeypatch.setattr(sys, "argv", ["audit.py", str(script)])
        return audit.main(), capsys.readouterr().out

    return go


def test_a_clean_answer_about_every_package_is_clean(run):
    assert run(SOUND) == (0, "no known vulnerability in any of 1 packages, by PyPI (pypi.org/pypi/…/json)\n")


def test_a_finding_is_named_with_what_mends_it(run):
    code, output = run(SOUND, BROKEN, UNKNOWN)
    assert code == 1 and "three 3.0: PYSEC-1, mended in 3.1" in output


def test_packages_that_nobody_knows_are_not_called_clean(run):
    code, output = run(SOUND, UNKNOWN)
    assert code == 2 and output.endswith("not audited: two\n")


def test_where_one_service_does_not_answer_the_other_is_asked(run):
    code, output = run(SOUND, services=("osv",))
    assert code == 0 and "OSV" in output


@pytest.mark.parametrize(("reports", "services"), [((UNKNOWN,), ("pypi", "osv")), ((SOUND,), ())])
def test_where_nobody_answers_one_line_says_so(run, reports, services):
    code, line = run(*reports, services=services)
    assert code == 2 and line.startswith("not audited: of ") and line.count("\n") == 1


def test_versions_are_asked_for_as_the_index_knows_them():
    assert not any("+" in package or package.startswith("coarseloc") for package in audit.installed())
