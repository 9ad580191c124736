"""All answers of all flights as one table of columns: to filter, to sort and to leaf through.

A row is a frame of a run by one method. Errors and agreement are those of `search.answers`, computed for all rows at
once: 120,000 of them take less than a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats
from coarseloc.store import Session, gallery_columns, runs
from coarseloc.store.gallery_columns import FrameColumns, Keys, LocalizationColumns, NewestLocalization
from coarseloc.store.localizations import BEST_PLACE
from coarseloc.store.runs import StoredRun
from search.answers import agreement_within_m

NAMES = ("flight", "set", "model", "method", "state")  # columns of text
NUMBERS = ("error", "heading-off", "probability", "margin", "score", "agreement")  # columns of numbers

_VERDICTS = ("on", "near", "far")  # of `metrics.verdict`


class RowKey(NamedTuple):
    """What names a row for as long as its answer is stored."""

    localization: int
    frame: int  # its index


@dataclass(frozen=True, slots=True)
class AnsweredFrames:
    """N rows in the order of flight, frame, run and method."""

    runs: Sequence[StoredRun]  # that `run` refers to
    choices: Mapping[str, Sequence[str]]  # {a column of NAMES: its values}
    codes: Mapping[str, Keys]  # {a column of NAMES: [N], indices of its values}
    numbers: Mapping[str, Floats]  # {a column of NUMBERS: [N]}; NaN where there is none
    agreeing: Keys  # [N, 2]: backbones that agree, of how many; (0, 0) without an estimate
    lon: Floats  # [N], of the estimate
    lat: Floats  # [N]
    heading_deg: Floats  # [N]
    run: Keys  # [N]
    localization: Keys  # [N]
    frame: Keys  # [N], its index in its flight
    snapshot: Keys  # [N], key of the run's best tile; 0 where there is none

    @property
    def error_known(self) -> Bools:
        return np.isfinite(self.numbers["error"])

    def select(
        self, names: Mapping[str, Collection[str]], bounds: Mapping[str, tuple[float | None, float | None]]
    ) -> Keys:
        """Choose the rows whose text is among `names` and whose numbers lie within `bounds`, edges included; a row
        without the number is outside. An empty collection, and None, is no condition."""
        fits: Bools = np.ones(len(self.frame), np.bool_)
        for column, values in names.items():
            if values:
                wanted = [code for code, value in enumerate(self.choices[column]) if value in values]
                fits &= np.isin(self.codes[column], wanted)
        for column, (low, high) in bounds.items():
            if low is not None:
                fits &= self.numbers[column] >= low
            if high is not None:
                fits &= self.numbers[column] <= high
        return np.flatnonzero(fits)

    def order(self, rows: Keys, column: str | None, descending: bool = False) -> Keys:
        """Sort rows by a column of numbers, those without the number last; as they are by None."""
        if column is None:
            return rows
        return rows[np.argsort(self._rank_values(rows, column, descending), kind="stable")]

    def position_after(self, ordered: Keys, column: str | None, descending: bool, key: RowKey, value: float) -> int:
        """Where to go on after the row of a key in ordered rows; where it is not among them any more, after those that
        its value in the column comes after."""
        match = np.flatnonzero((self.localization[ordered] == key.localization) & (self.frame[ordered] == key.frame))
        if len(match):
            return int(match[0]) + 1
        if column is None:
            return 0
        values = self._rank_values(ordered, column, descending)
        return int(np.searchsorted(values, -value if descending else value, side="right"))

    def rows_of(self, keys: Collection[RowKey]) -> Keys:
        """The rows of these keys, in the table's order."""
        wanted = [key.localization for key in keys]
        rows = np.flatnonzero(np.isin(self.localization, wanted))
        return np.array([row for row in rows.tolist() if self.key(row) in set(keys)], np.int64)

    def key(self, row: int) -> RowKey:
        return RowKey(int(self.localization[row]), int(self.frame[row]))

    def text(self, row: int, column: str) -> str:
        return self.choices[column][int(self.codes[column][row])]

    def number(self, row: int, column: str) -> float | None:
        value = float(self.numbers[column][row])
        return None if np.isnan(value) else value

    def _rank_values(self, rows: Keys, column: str, descending: bool) -> Floats:
        values = self.numbers[column][rows]
        return -values if descending else values


@dataclass(frozen=True, slots=True)
class AnswerSources:
    """What a table is made of; the same `mark` makes the same table."""

    frames: Mapping[str, FrameColumns]
    runs: Mapping[str, Sequence[StoredRun]]  # by flight, oldest first
    localizations: Mapping[int, Sequence[NewestLocalization]]  # finished ones, by run

    @property
    def mark(self) -> int:
        answers = tuple(tuple(newest) for newest in self.localizations.values())
        shown = tuple((run.id, run.reference_set.name) for of_flight in self.runs.values() for run in of_flight)
        return hash((answers, shown, tuple((name, columns.digest) for name, columns in self.frames.items())))


def answer_sources(session: Session) -> AnswerSources:
    """Read which runs and answers there are, and every frame's truth."""
    runs_by_flight: dict[str, list[StoredRun]] = {}
    for run in runs.runs(session):
        runs_by_flight.setdefault(run.flight_id, []).append(run)
    localizations: dict[int, list[NewestLocalization]] = {}
    for newest in gallery_columns.newest_localizations(session):
        if newest.finished_at is not None:
            localizations.setdefault(newest.run, []).append(newest)
    return AnswerSources(gallery_columns.frame_columns(session), runs_by_flight, localizations)


def answered_frames(session: Session, sources: AnswerSources) -> AnsweredFrames:
    """Read all answers of the newest runs: those that pages of a flight show."""
    parts: list[_AnswerRows] = []
    for flight_id, of_flight in sources.runs.items():
        if flight_id in sources.frames:
            parts += _flight_parts(session, sources, sources.frames[flight_id], of_flight)
    return _table(parts)


class _AnswerRows(NamedTuple):
    """One answer's rows, with what is computed of them."""

    run: StoredRun
    newest: NewestLocalization
    columns: LocalizationColumns
    position: Keys  # [N], of each frame in its flight
    frame: Keys  # [N], index of each
    error_m: Floats
    heading_off_deg: Floats
    state: Sequence[str]
    agreeing: Keys  # [N, 2]
    snapshot: Keys


class _Votes(NamedTuple):
    """A run's positions by the flight's frames; NaN where there is none."""

    lon: Floats  # [F]
    lat: Floats  # [F]


def _flight_parts(
    session: Session, sources: AnswerSources, frames: FrameColumns, of_flight: Sequence[StoredRun]
) -> list[_AnswerRows]:
    order = np.argsort(frames.key)
    columns_by_localization: dict[int, tuple[LocalizationColumns, Keys]] = {}

    def read(newest: NewestLocalization) -> tuple[LocalizationColumns, Keys]:
        """An answer, and where its frames stand in the flight."""
        if newest.localization not in columns_by_localization:
            columns = gallery_columns.localization_columns(session, newest.localization, newest.method)
            position = order[np.searchsorted(frames.key, columns.frame, sorter=order)]
            columns_by_localization[newest.localization] = columns, position
        return columns_by_localization[newest.localization]

    def votes(newest: NewestLocalization) -> _Votes:
        columns, position = read(newest)
        lon, lat = np.full(len(frames.key), np.nan), np.full(len(frames.key), np.nan)
        lon[position], lat[position] = columns.lon, columns.lat
        return _Votes(lon, lat)

    parts, listed = [], set()
    for run in runs.newest_runs(of_flight):
        newest_by_method = {newest.method: newest for newest in sources.localizations.get(run.id, ())}
        snapshots = np.zeros(len(frames.key), np.int64)
        if BEST_PLACE in newest_by_method:
            best, position = read(newest_by_method[BEST_PLACE])
            snapshots[position] = best.snapshot
        voters = runs.agreement_voters(run, of_flight)
        for method, newest in newest_by_method.items():
            if newest.localization in listed:
                continue  # a track of several runs
            listed.add(newest.localization)
            columns, position = read(newest)
            answers = [
                candidate
                for voter in voters
                for candidate in sources.localizations.get(voter.id, ())
                if candidate.method == method
            ]
            lon, lat, yaw_deg = frames.lon[position], frames.lat[position], frames.yaw_deg[position]
            error_m = geo.distance_m(lon, lat, columns.lon, columns.lat)
            inside = geo.inside(lon, lat, columns.bbox)
            heading_off_deg = np.abs(geo.signed_difference_deg(yaw_deg, columns.heading_deg))
            if method == BEST_PLACE:  # the heading of a wrong place means nothing
                heading_off_deg = np.where(inside, heading_off_deg, np.nan)
            states = _states(columns, inside, error_m) if method == BEST_PLACE else columns.state.tolist()
            agreeing = _agreeing(votes(newest), [votes(answer) for answer in answers], agreement_within_m(run))
            parts.append(
                _AnswerRows(
                    run=run,
                    newest=newest,
                    columns=columns,
                    position=position,
                    frame=frames.index[position],
                    error_m=error_m,
                    heading_off_deg=heading_off_deg,
                    state=states,
                    agreeing=agreeing[position],
                    snapshot=snapshots[position],
                )
            )
    return parts


def _states(columns: LocalizationColumns, inside: Bools, error_m: Floats) -> list[str]:
    """Of best tiles the verdict where truth is known; see `metrics.verdict`."""
    south, north = columns.bbox[:, 1], columns.bbox[:, 3]
    near = error_m <= geo.distance_m(0.0, south, 0.0, north)
    verdicts = np.where(inside, 0, np.where(near, 1, 2)).tolist()
    judged = ~(np.isnan(error_m) | np.isnan(south))
    return [
        _VERDICTS[verdict] if known else state
        for verdict, known, state in zip(verdicts, judged.tolist(), columns.state.tolist(), strict=True)
    ]


def _agreeing(votes: _Votes, voters: Sequence[_Votes], within_m: float) -> Keys:
    """Count for each of F frames the voters near this vote, itself included, and all; (0, 0) without a vote. [F, 2]"""
    counts = np.zeros((len(votes.lon), 2), np.int64)
    for voter in voters:
        counts[:, 0] += geo.ellipsoid_distance_m(votes.lon, votes.lat, voter.lon, voter.lat) <= within_m
        counts[:, 1] += ~np.isnan(voter.lon)
    counts[np.isnan(votes.lon)] = 0
    return counts


def _table(parts: Sequence[_AnswerRows]) -> AnsweredFrames:
    choices: dict[str, list[str]] = {name: [] for name in NAMES}
    codes: dict[str, list[Keys]] = {name: [] for name in NAMES}
    for part in parts:
        run, n = part.run, len(part.frame)
        texts = {"flight": run.flight_id, "set": run.reference_set.name, "model": run.spec.backbone}
        for name, value in (texts | {"method": part.newest.method}).items():
            codes[name].append(np.full(n, _code(choices[name], value)))
        code_by_state = {state: _code(choices["state"], state) for state in dict.fromkeys(part.state)}
        codes["state"].append(np.fromiter((code_by_state[state] for state in part.state), np.int64, n))
    stored_runs = list({part.run.id: part.run for part in parts}.values())
    run_numbers = {run.id: number for number, run in enumerate(stored_runs)}

    def joined(columns: list[Keys]) -> Keys:
        return np.concatenate(columns) if columns else np.zeros(0, np.int64)

    def joined_numbers(columns: list[Floats]) -> Floats:
        return np.concatenate(columns) if columns else np.zeros(0)

    flight = joined(codes["flight"])
    position = joined([part.position for part in parts])
    order = np.lexsort((position, flight))  # stable: runs and methods stay as they are
    agreeing = joined([part.agreeing for part in parts]).reshape(-1, 2)[order]
    with np.errstate(invalid="ignore"):
        agreement = np.where(agreeing[:, 1] > 1, agreeing[:, 0] / np.maximum(agreeing[:, 1], 1), np.nan)
    numbers = {
        "error": joined_numbers([part.error_m for part in parts])[order],
        "heading-off": joined_numbers([part.heading_off_deg for part in parts])[order],
        "probability": joined_numbers([part.columns.probability for part in parts])[order],
        "margin": joined_numbers([part.columns.margin for part in parts])[order],
        "score": joined_numbers([part.columns.score for part in parts])[order],
        "agreement": agreement,
    }
    return AnsweredFrames(
        runs=stored_runs,
        choices=choices,
        codes={name: joined(columns)[order] for name, columns in codes.items()},
        numbers=numbers,
        agreeing=agreeing,
        lon=joined_numbers([part.columns.lon for part in parts])[order],
        lat=joined_numbers([part.columns.lat for part in parts])[order],
        heading_deg=joined_numbers([part.columns.heading_deg for part in parts])[order],
        run=joined([np.full(len(part.frame), run_numbers[part.run.id]) for part in parts])[order],
        localization=joined([np.full(len(part.frame), part.newest.localization) for part in parts])[order],
        frame=joined([part.frame for part in parts])[order],
        snapshot=joined([part.snapshot for part in parts])[order],
    )


def _code(values: list[str], value: str) -> int:
    if value not in values:
        values.append(value)
    return values.index(value)
