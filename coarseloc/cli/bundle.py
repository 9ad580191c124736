"""`coarseloc bundle`: a flight's runs as one file to hand on, checked without its data, and run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coarseloc.cli.options import flight_id
from coarseloc.cli.terminal import (
    answer,
    json_option,
    next_step,
    out,
    pass_workspace,
    spoken,
    table,
    workspace_on_terminal,
)
from coarseloc.core import config
from coarseloc.core.config import is_data_folder
from coarseloc.core.errors import InputError
from coarseloc.workspace import Workspace
from search.bundle.comparison import METRES_TOLERANCE, SCORE_TOLERANCE, Tolerance

if TYPE_CHECKING:
    from search.bundle.check import BundleCheck
    from search.bundle.reproduction import Reproduction, RunReproduction

_STATES = {
    "none": "not signed",
    "invalid": "its signature is wrong: it was changed after it was signed, or never signed by this key",
    "other-key": "it is signed by another key than --key",
    "unverified": "its signature was not looked at: install the extra, pip install 'coarseloc[sign]'",
}


@click.group()
def bundle() -> None:
    """A flight's runs as one file to hand on: made, checked without the data, and run again."""


@bundle.command()
@click.argument("flight")
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="The zip to write.")
@click.option("--backbone", "backbones", multiple=True, help="Only its runs; may be given several times.")
@click.option("--reference-set", "name", help="Only runs against this set.")
@click.option("--no-report", is_flag=True, help="Leave out report.html, which shows frames' pictures.")
@click.option(
    "--sign", "key", type=click.Path(path_type=Path), help="Sign it by this ed25519 private key, PEM or OpenSSH."
)
@json_option
@pass_workspace
def create(
    workspace: Workspace,
    flight: str,
    file: Path,
    backbones: Sequence[str],
    name: str | None,
    no_report: bool,
    key: Path | None,
    as_json: bool,
) -> None:
    """Write FLIGHT's newest runs with what decides them: settings, specs, digests, environment, hits, truth, report.

    Frames are read for their digests; no picture is put in but those in the report. Nothing is computed again.
    """
    sign = None
    if key is not None:
        from search.bundle.signature import signer

        sign = signer(key, lambda: click.prompt(f"Passphrase of {key}", hide_input=True, err=True))
    language = click.get_current_context().find_root().params["language"]
    summary = workspace.bundle(
        flight_id(flight),
        file,
        backbones=backbones,
        reference_set=name,
        with_report=not no_report,
        language=language,
        sign=sign,
    )

    def show() -> None:
        out.print(
            f"wrote {file} ({summary.bytes / 1e6:.1f} MB): {summary.runs} runs over {summary.frames} frames of flight "
            f"{summary.flight_id}"
        )
        out.print(f"its digest: {summary.digest}")
        next_step("bundle", "reproduce", str(file), "--data", "FOLDER", note="the same answers on another machine?")

    answer(as_json, asdict(summary), show)


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The public key that must have signed it.")
@json_option
def check(file: Path, key: Path | None, as_json: bool) -> None:
    """Whether every byte of FILE is as its manifest states, and who signed that; needs no data and no model.

    A file that is damaged, or not signed as --key asks, ends in exit code 2.
    """
    from search.bundle.check import check_bundle

    result = check_bundle(file, key)
    answer(as_json, {**asdict(result), "sound": result.is_sound}, lambda: _show_check(result))
    if result.damage:
        damaged = "; ".join(f"{member.name}: {member.problem}" for member in result.damage)
        raise InputError(f"{file} is damaged: {damaged}. Ask for it again, where it came from")
    if result.signature.is_refused:
        raise InputError(f"{file} is not to be trusted: {spoken(_STATES[result.signature.state])}")


def _show_check(result: BundleCheck) -> None:
    out.print(
        f"{result.file}: flight {result.flight_id}, {result.runs} runs in {result.members} members, "
        f"{result.bytes / 1e6:.1f} MB"
    )
    out.print(f"its digest: {result.digest}")
    if not result.damage:
        out.print("every member is as it was written")
    signature = result.signature
    if signature.state != "valid":
        out.print(_STATES[signature.state])
    elif signature.key_named:
        out.print(f"signed by that key, {signature.key_fingerprint}")
    else:
        out.print(f"signed by {signature.key_fingerprint}; whose key that is, --key says")


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The data folder to run it in. [as of --data-dir]")
@click.option(
    "--flight", type=click.Path(path_type=Path), help="The folder of the frames. [where the data folder has them]"
)
@click.option("--backbone", "backbones", multiple=True, help="Only its runs; may be given several times.")
@click.option("--device", help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]")
@click.option(
    "--score-tolerance",
    type=click.FloatRange(min=0),
    default=SCORE_TOLERANCE,
    show_default=True,
    help="Of a hit's cosine.",
)
@click.option(
    "--tolerance-m",
    type=click.FloatRange(min=0),
    default=METRES_TOLERANCE,
    show_default=True,
    help="Of a position, metres.",
)
@json_option
@pass_workspace
def reproduce(
    workspace: Workspace,
    file: Path,
    data: Path | None,
    flight: Path | None,
    backbones: Sequence[str],
    device: str | None,
    score_tolerance: float,
    tolerance_m: float,
    as_json: bool,
) -> None:
    """Run FILE's searches and fixes again and say: equal to the bit, within tolerance, or where it differs first.

    Nothing is recorded in the data folder. Exit code 0 where all is equal or within tolerance, else 2.
    """
    if data is not None:
        workspace = _workspace_of(data)
    result = workspace.reproduce(
        file, flight=flight, backbones=backbones, device=device, tolerance=Tolerance(score_tolerance, tolerance_m)
    )
    answer(as_json, {"verdict": result.verdict, **asdict(result)}, lambda: _show_reproduction(result))
    if result.verdict not in ("equal", "within-tolerance"):
        raise InputError(f"{file} is not reproduced: {'; '.join(_reasons(result))}")


def _workspace_of(data: Path) -> Workspace:
    """The workspace of a data folder that must be there."""
    root = click.get_current_context().find_root()
    settings = config.load(data, root.params["config_file"])
    if settings.database_url is None and not is_data_folder(settings.data_dir):
        raise InputError(f"{data} holds no data of coarseloc: expected a folder that `coarseloc ingest` has made")
    workspace = workspace_on_terminal(settings)
    root.call_on_close(workspace.close)
    return workspace


def _show_reproduction(result: Reproduction) -> None:
    rows = [
        (
            run.run,
            run.backbone + ("" if run.angle_deg is None else f" at {run.angle_deg:03d}"),
            run.frames,
            run.equal_frames,
            run.close_frames,
            f"{run.largest_score_off:.2g}",
            f"{run.largest_metres_off:.2g}",
            spoken(run.verdict),
        )
        for run in result.runs
    ]
    columns = ("run", "backbone", "frames", "equal", "close", "score off", "metres off", "verdict")
    table(*columns, rows=rows)
    tolerance = result.tolerance
    out.print(f"close: scores within {tolerance.score:g} and positions within {tolerance.metres:g} m")
    for difference in result.inputs:
        out.print(str(difference), style="red" if difference.decides else "yellow")
    for run in result.runs:
        if (text := _first_difference(run)) is not None:
            out.print(text)
    for changed in result.environment:
        out.print(f"environment: {changed.name} is {changed.here} here and was {changed.bundle}", style="dim")
    for text in result.not_run_again:
        out.print(f"not run again: {text}", style="dim")
    out.print(f"verdict: {spoken(result.verdict)}")


def _first_difference(run: RunReproduction) -> str | None:
    first: Any = run.reason or run.difference or run.deviation
    return None if first is None else f"run {run.run}: {first}"


def _reasons(result: Reproduction) -> list[str]:
    reasons = [str(difference) for difference in result.inputs if difference.decides]
    bad = [run for run in result.runs if run.verdict in ("different", "not-run")]
    return reasons + [text for run in bad if (text := _first_difference(run)) is not None]
