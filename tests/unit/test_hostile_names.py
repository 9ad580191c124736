"""Names from outside, where they are shown: in headers, on terminals, in spreadsheets."""

from __future__ import annotations

import csv
import io
import re

import click
import pytest
from flask import Response
from rich.text import Text
from werkzeug.http import parse_options_header

from coarseloc import cli
from coarseloc.cli import terminal
from coarseloc.core import ids
from coarseloc.core.errors import InputError
from search.evaluation.evaluate import _cells
from search.export.formats import to_csv
from web.pages.export_files import attachment

HOSTILE = "\x00\x07\x08\r\x1b[2J\x7f\x9b31m\u061c\u200e\u202e\u2066\u2028\ud800"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the commands print."""
    text = io.StringIO()
    monkeypatch.setattr(terminal.out, "_file", text)
    return text


@pytest.mark.parametrize("name", ["비행 1", "Ä", "plain", 'a"b;c', "a\r\nX-Other: 1", f"x{HOSTILE}y", "\u202e"])
def test_any_name_makes_a_header_that_can_be_sent_and_names_the_file(name: str) -> None:
    header = attachment(Response(), f"{name}.csv").headers["Content-Disposition"]
    header.encode("ascii")
    assert not CONTROL.search(header) and "\n" not in header
    kind, options = parse_options_header(header)
    assert kind == "attachment" and options["filename"] == ids.file_name(f"{name}.csv")


def test_names_in_tables_and_lines_reach_a_terminal_without_control_characters(printed: io.StringIO) -> None:
    terminal.table("flight", rows=[[f"a{HOSTILE}b"]], title=HOSTILE)
    terminal.out.print(f"wrote a{HOSTILE}b")
    terminal.out.print(f"said{HOSTILE}", style="yellow")
    terminal.table("flight", rows=[[Text(f"styled{HOSTILE}", "red")]])
    assert not CONTROL.search(printed.getvalue()) and "\ufffd" in printed.getvalue()


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[/bold]", "[link=http://evil.example]x[/link]", "flight[1]"])
def test_markup_in_names_is_printed_as_it_is(printed: io.StringIO, name: str) -> None:
    terminal.table("flight", rows=[[name]], title=name)
    terminal.out.print(f"wrote {name}")
    assert printed.getvalue().count(name) == 3


def test_errors_reach_a_terminal_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (InputError(f"no flight {HOSTILE}"), click.UsageError(f"no option {HOSTILE}")):
        monkeypatch.setattr(cli.cli, "main", lambda error=error, **_: (_ for _ in ()).throw(error))
        with pytest.raises(SystemExit):
            cli.main()
        shown = capsys.readouterr().err
        assert "no " in shown and not CONTROL.search(shown)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1"])
def test_no_name_becomes_a_formula_in_a_spreadsheet(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([{"flight_id": name, "lon": -3.5, "error": None}]), newline=""))
    assert row == {"flight_id": f"'{name}", "lon": "-3.5", "error": ""}
    assert _cells(name, "area", None) == (f"'{name}", "area", None)


def test_control_characters_neither_break_a_row_nor_reach_a_spreadsheet() -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([{"flight_id": f"\r=1{HOSTILE}", "error": "two\nlines"}]), newline=""))
    assert row["flight_id"].startswith("\ufffd=1") and row["error"] == "two\nlines"
    assert not CONTROL.search("".join(row.values()))
