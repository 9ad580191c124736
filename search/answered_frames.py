"""All answers of all flights as one table of columns: to filter, to sort and to leaf through.

A row is a frame of a run by one method. Errors and agreement are those of `search.answers`, computed for all rows at
once: 120,000 of them take less than a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats
from coarseloc.store import Session, columns, localizations, runs
from coarseloc.store.columns import Columns
from coarseloc.store.localizations import BEST_PLACE, FIX, TRACK, TRACK_SMOOTHED, NewestLocalization
from coarseloc.store.runs import StoredRun
from search.answer_columns import AnswerColumns, answer_columns, count_agreement
from search.answers import agreement_within_m

Keys = NDArray[np.int64]

NAMES = ("flight", "set", "model", "method", "state")  # columns of text
NUMBERS = ("error", "heading-off", "probability", "margin", "score", "agreement")  # columns of numbers

_VERDICTS = {0.0: "on", 1.0: "near", 2.0: "far"}  # of `AnswerColumns.verdict`
_FIX_STATES = {1.0: "match", 0.0: "no-match"}  # of `AnswerColumns.matches`; else not verified


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

    def of_frames(self, rows: Keys, frames: Mapping[str, Collection[int]]) -> Keys:
        """Choose of rows those of some frames, {flight: indices}."""
        fits: Bools = np.zeros(len(rows), np.bool_)
        flight, frame = self.codes["flight"][rows], self.frame[rows]
        for code, name in enumerate(self.choices["flight"]):
            if name in frames:
                fits |= (flight == code) & np.isin(frame, list(frames[name]))
        return rows[fits]

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
        localizations = [key.localization for key in keys]
        rows = np.flatnonzero(np.isin(self.localization, localizations))
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

    frames: Mapping[str, Columns]  # by flight, of `columns.frame_columns_by_flight`
    runs: Mapping[str, Sequence[StoredRun]]  # by flight, oldest first
    localizations: Mapping[int, Sequence[NewestLocalization]]  # finished ones, by run

    @property
    def mark(self) -> int:
        answers = tuple(tuple(newest) for newest in self.localizations.values())
        run_sets = tuple((run.id, run.reference_set.name) for of_flight in self.runs.values() for run in of_flight)
        truth = ("id", "lon", "lat", "yaw_deg")
        frames = ((flight, *(of[name].tobytes() for name in truth)) for flight, of in self.frames.items())
        return hash((answers, run_sets, tuple(frames)))


def answer_sources(session: Session) -> AnswerSources:
    """Read which runs and answers there are, and every frame's truth."""
    runs_by_flight: dict[str, list[StoredRun]] = {}
    for run in runs.runs(session):
        runs_by_flight.setdefault(run.flight_id, []).append(run)
    newest_by_run: dict[int, list[NewestLocalization]] = {}
    for newest in localizations.newest_localizations(session):
        if newest.finished_at is not None:
            newest_by_run.setdefault(newest.run, []).append(newest)
    return AnswerSources(columns.frame_columns_by_flight(session), runs_by_flight, newest_by_run)


def answered_frames(session: Session, sources: AnswerSources) -> AnsweredFrames:
    """Read all answers of the newest runs: those that pages of a flight show."""
    parts: list[_AnswerRows] = []
    for flight_id, of_flight in sources.runs.items():
        if flight_id in sources.frames:
            parts += _flight_parts(session, sources, sources.frames[flight_id], of_flight)
    return _table(parts)


class _AnswerRows(NamedTuple):
    """One answer's N rows, with what is computed of them."""

    run: StoredRun
    newest: NewestLocalization
    answer: AnswerColumns  # of all frames
    position: Keys  # [N], of the frames that it has a row of
    frame: Keys  # [N], index of each
    heading_off_deg: Floats
    state: Sequence[str]
    agreeing: Keys  # [N, 2]
    snapshot: Keys


def _flight_parts(
    session: Session, sources: AnswerSources, frames: Columns, of_flight: Sequence[StoredRun]
) -> list[_AnswerRows]:
    answers: dict[int, AnswerColumns] = {}

    def read(newest: NewestLocalization) -> AnswerColumns:
        if newest.localization not in answers:
            answers[newest.localization] = answer_columns(session, newest.localization, newest.method, frames)
        return answers[newest.localization]

    parts, listed = [], set()
    for run in runs.newest_runs(of_flight):
        newest_by_method = {newest.method: newest for newest in sources.localizations.get(run.id, ())}
        snapshots = np.zeros(len(frames["id"]), np.int64)
        if BEST_PLACE in newest_by_method:
            snapshots = np.nan_to_num(read(newest_by_method[BEST_PLACE]).snapshot).astype(np.int64)
        voters = runs.agreement_voters(run, of_flight)
        for method, newest in newest_by_method.items():
            if newest.localization in listed:
                continue  # a track of several runs
            listed.add(newest.localization)
            answer = read(newest)
            votes = [
                read(candidate)
                for voter in voters
                for candidate in sources.localizations.get(voter.id, ())
                if candidate.method == method
            ]
            heading_off_deg = np.abs(geo.signed_difference_deg(frames["yaw_deg"], answer.heading_deg))
            if method == BEST_PLACE:  # the heading of a wrong place means nothing
                heading_off_deg = np.where(answer.verdict == 0.0, heading_off_deg, np.nan)
            position = np.flatnonzero(answer.is_there)
            parts.append(
                _AnswerRows(
                    run=run,
                    newest=newest,
                    answer=answer,
                    position=position,
                    frame=frames["index"][position].astype(np.int64),
                    heading_off_deg=heading_off_deg[position],
                    state=_states(answer, method, position),
                    agreeing=_agreeing(answer, votes, agreement_within_m(run))[position],
                    snapshot=snapshots[position],
                )
            )
    return parts


def _states(answer: AnswerColumns, method: str, position: Keys) -> list[str]:
    """Of best tiles the verdict where truth is known, of fixes whether they match; else the state as stored."""
    if method == FIX:
        return [_FIX_STATES.get(match, "unverified") for match in answer.matches[position].tolist()]
    verdicts, states = answer.verdict[position].tolist(), answer.states[position].tolist()
    return [_VERDICTS.get(verdict, state) for verdict, state in zip(verdicts, states, strict=True)]


def _agreeing(own: AnswerColumns, answers: Sequence[AnswerColumns], within_m: float) -> Keys:
    """Count for each of F frames the answers near this one, itself included, and all; (0, 0) without a position.
    [F, 2]"""
    if not answers:
        return np.zeros((len(own.lon), 2), np.int64)
    counts = np.stack(count_agreement(own, answers, within_m), axis=1)
    return np.where(own.placed[:, None], counts, 0.0).astype(np.int64)


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
        "error": joined_numbers([part.answer.error_m[part.position] for part in parts])[order],
        "heading-off": joined_numbers([part.heading_off_deg for part in parts])[order],
        "probability": joined_numbers([part.answer.probability[part.position] for part in parts])[order],
        "margin": joined_numbers([part.answer.margin[part.position] for part in parts])[order],
        "score": joined_numbers([_scores(part) for part in parts])[order],
        "agreement": agreement,
    }
    return AnsweredFrames(
        runs=stored_runs,
        choices=choices,
        codes={name: joined(columns)[order] for name, columns in codes.items()},
        numbers=numbers,
        agreeing=agreeing,
        lon=joined_numbers([part.answer.lon[part.position] for part in parts])[order],
        lat=joined_numbers([part.answer.lat[part.position] for part in parts])[order],
        heading_deg=joined_numbers([part.answer.heading_deg[part.position] for part in parts])[order],
        run=joined([np.full(len(part.frame), run_numbers[part.run.id]) for part in parts])[order],
        localization=joined([np.full(len(part.frame), part.newest.localization) for part in parts])[order],
        frame=joined([part.frame for part in parts])[order],
        snapshot=joined([part.snapshot for part in parts])[order],
    )


def _scores(part: _AnswerRows) -> Floats:
    """A track has a probability and no score of its own."""
    if part.newest.method in (TRACK, TRACK_SMOOTHED):
        return np.full(len(part.position), np.nan)
    return part.answer.score[part.position]


def _code(values: list[str], value: str) -> int:
    if value not in values:
        values.append(value)
    return values.index(value)
