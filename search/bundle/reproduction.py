"""A bundle's searches run again on the references and frames here, and their answers held against the bundle's.

Nothing is recorded: what this writes to a data folder are mirrors that were not built yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coarseloc.core.errors import CoarselocError, InputError
from coarseloc.core.filters import Where
from coarseloc.core.types import Backbone, EmbeddingSpec, Frame, Progress
from coarseloc.localize.localizer import LocalizedImage
from coarseloc.localize.registration.fix import FITTED
from coarseloc.store import Database, embeddings, flights, references
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import FrameResult, combine_reference_sets
from search.bundle.archive import BundleFile, line_bytes
from search.bundle.comparison import FrameDifference, Tolerance, Verdict, compare_frame, worst
from search.bundle.inputs import InputDifference, frame_differences, frames_here, reference_differences
from search.bundle.records import BundleFlight, BundleRun, frame_facts, hit_facts, parse
from search.environment import code_digest, machine
from search.flight import find_spec, search_frames
from search.mirror_index import MirrorIndex, index_tiles, open_mirrors
from search.verification import FixRequest, Verifier, open_reference_maps

Reporter = Callable[[str], AbstractContextManager[Progress | None]]
Lines = Mapping[int, dict[str, Any]]
"""{frame index: its answer, as a line of the bundle}"""


@dataclass(slots=True)
class RunReproduction:
    """One run of the bundle: how its frames compare. `difference` is the first beyond the tolerance, `deviation` the
    first within it; reason: why it was not run."""

    run: int
    backbone: str
    angle_deg: int | None
    verdict: Verdict = "equal"
    reason: str | None = None
    frames: int = 0
    equal_frames: int = 0
    close_frames: int = 0
    difference: FrameDifference | None = None
    deviation: FrameDifference | None = None
    largest_score_off: float = 0.0
    largest_metres_off: float = 0.0


@dataclass(frozen=True, slots=True)
class EnvironmentDifference:
    """What answered here is another than what did then."""

    name: str  # such as "threads.torch"
    bundle: Any
    here: Any


@dataclass(slots=True)
class Reproduction:
    """What became of a bundle that was run again."""

    flight_id: str
    bundle_digest: str
    tolerance: Tolerance
    inputs: list[InputDifference] = field(default_factory=list)
    environment: list[EnvironmentDifference] = field(default_factory=list)
    runs: list[RunReproduction] = field(default_factory=list)
    not_run_again: list[str] = field(default_factory=list)  # answers that no search gives

    @property
    def verdict(self) -> Verdict:
        """The worst of all runs; with other frames or references it is "different" whatever they answer."""
        if any(difference.decides for difference in self.inputs):
            return "different"
        return worst([run.verdict for run in self.runs])


@dataclass(slots=True)
class Reproducer:
    """A data folder's stores, and what a bundle is run again with."""

    db: Database
    mirrors: Path
    bundle: BundleFile
    load: Callable[[EmbeddingSpec], Backbone]
    tolerance: Tolerance
    show_progress: Reporter
    notice: Callable[[str], None]

    def reproduce(self, folder: Path | None = None, backbones: Sequence[str] = ()) -> Reproduction:
        """Run the bundle's searches again. folder: of the flight's frames, where the data folder knows no other.
        backbones: only these runs.

        Raises InputError where the bundle cannot be used, its frames are nowhere, or no run is of these backbones.
        """
        bundle = self.bundle
        flight = parse(BundleFlight, bundle.json("flight.json"), "flight.json")
        runs = {name[: -len(".json")]: parse(BundleRun, bundle.json(name), name) for name in _run_names(bundle)}
        chosen = {name: run for name, run in runs.items() if not backbones or run.spec.backbone in backbones}
        if not chosen:
            names = ", ".join(sorted({run.spec.backbone for run in runs.values()})) or "none"
            raise InputError(f"the bundle has no run of {', '.join(backbones) or 'any backbone'}: it has {names}")
        result = Reproduction(flight.flight_id, bundle.digest, self.tolerance)
        result.not_run_again = _other_answers(bundle)
        if (code := _code_difference(bundle)) is not None:
            result.environment.append(code)
        frames = frames_here(flight, folder or self._flight_folder(flight))
        with self.show_progress("digests") as progress:
            result.inputs += frame_differences(flight, frames, progress)
        sets = self._sets_here(chosen.values())
        for number, stored in sets.items():
            result.inputs += self._reference_differences(list(chosen.values()), number, stored)
        for group in _groups(chosen):
            self._reproduce_group(result, group, frames, sets)
        result.environment = _unique(result.environment)
        return result

    # --- what is here -----------------------------------------------------------------------------

    def _flight_folder(self, flight: BundleFlight) -> Path:
        """The folder of the flight of this id for good, else of this name."""
        with self.db.read() as session:
            stored_flights = [flights.find_flight(session, name) for name in flights.flight_ids(session)]
        by_uid = {stored.uid: stored.flight.path for stored in stored_flights}
        by_name = {stored.flight.flight_id: stored.flight.path for stored in stored_flights}
        folder = by_uid.get(flight.flight_uid) or by_name.get(flight.flight_id)
        if folder is None:
            raise InputError(
                f"this data folder knows no flight {flight.flight_id}: say with --flight where its frames are"
            )
        return folder

    def _sets_here(self, runs: Iterable[BundleRun]) -> dict[int, StoredReferenceSet]:
        """{number in the bundle: the set here of this id for good, else of this name}; without those that are not."""
        with self.db.read() as session:
            stored_sets = references.reference_sets(session)
        by_uid = {stored.uid: stored for stored in stored_sets}
        by_name = {stored.name: stored for stored in stored_sets}
        bundled = {searched.number: searched for run in runs for searched in run.sets}
        sets_here = {number: by_uid.get(s.uid) or by_name.get(s.name) for number, s in sorted(bundled.items())}
        return {number: stored for number, stored in sets_here.items() if stored is not None}

    def _reference_differences(
        self, runs: Sequence[BundleRun], number: int, stored: StoredReferenceSet
    ) -> list[InputDifference]:
        with self.db.read() as session:
            spec_by_digest = {spec.digest: spec for spec in embeddings.specs(session, stored.id)}
        digests = [run.spec.digest for run in runs if any(searched.number == number for searched in run.sets)]
        specs = {digest: spec_by_digest[digest] for digest in dict.fromkeys(digests) if digest in spec_by_digest}
        return reference_differences(self.db, self.bundle, runs, number, stored, specs)

    # --- again ------------------------------------------------------------------------------------

    def _reproduce_group(
        self,
        result: Reproduction,
        group: Mapping[str, BundleRun],
        frames: Mapping[int, Frame],
        sets: Mapping[int, StoredReferenceSet],
    ) -> None:
        """Runs of one question and backbone, which differ in the heading searched: frames are embedded once."""
        reproductions = [
            RunReproduction(run.run, run.spec.backbone, run.parameters.angle_deg) for run in group.values()
        ]
        result.runs += reproductions
        try:
            answers = self._answers(result, group, frames, sets)
        except CoarselocError as error:
            for run in reproductions:
                run.verdict, run.reason = "not-run", str(error)
            return
        for run, name, lines in zip(reproductions, group, answers, strict=True):
            self._compare(run, self.bundle.lines(f"{name}.jsonl"), lines)

    def _answers(
        self,
        result: Reproduction,
        group: Mapping[str, BundleRun],
        frames: Mapping[int, Frame],
        sets: Mapping[int, StoredReferenceSet],
    ) -> list[Lines]:
        """Each run's answers here."""
        first = next(iter(group.values()))
        searched = [_searched_set(bundled.number, bundled.name, sets) for bundled in first.sets]
        specs = [find_spec(self.db, stored, first.spec) for stored in searched]
        backbone = self.load(first.spec)
        opened = open_mirrors(self.db, self.mirrors, searched, specs[0])
        indexes = [index_tiles(self.db, opened, _where(run)).copy_rows() for run in group.values()]
        if not all(index.count for index in indexes):
            raise InputError("no reference here matches the run's filters and heading")
        result.environment += _environment_differences(first, backbone, indexes[0])
        queried = [frames[index] for index in self._frame_indices(group) if index in frames]
        outcomes_by_run: list[list[tuple[Frame, LocalizedImage | None, str | None]]] = [[] for _ in group]
        parameters = first.parameters
        with self.show_progress(f"search {first.spec.backbone}") as progress:
            outcomes = search_frames(queried, backbone, indexes, parameters.k, parameters.batch)
            for completed, outcome in enumerate(outcomes, 1):
                for number, of_run in enumerate(outcomes_by_run):
                    of_run.append((outcome.frame, None if outcome.error else outcome.answers[number], outcome.error))
                if progress:
                    progress(completed, len(queried), "frames")
        numbers = {stored.name: bundled.number for stored, bundled in zip(searched, first.sets, strict=True)}
        return [
            self._lines(run, of_run, searched, numbers, backbone.device)
            for run, of_run in zip(group.values(), outcomes_by_run, strict=True)
        ]

    def _frame_indices(self, group: Iterable[str]) -> list[int]:
        indices: dict[int, None] = {}
        for name in group:
            for line in self.bundle.lines(f"{name}.jsonl"):
                if not isinstance(line, dict) or not isinstance(line.get("frame_index"), int):
                    raise InputError(f"{name}.jsonl of the bundle cannot be used: a line names no frame")
                indices[line["frame_index"]] = None
        return list(indices)

    def _lines(
        self,
        run: BundleRun,
        outcomes: Sequence[tuple[Frame, LocalizedImage | None, str | None]],
        searched: Sequence[StoredReferenceSet],
        numbers: Mapping[str, int],
        device: str,
    ) -> Lines:
        verifier = self._verifier(run, outcomes, searched, device)
        lines = {}
        with self.show_progress(f"fix {run.spec.backbone}") as progress:
            for completed, (frame, answer, error) in enumerate(outcomes, 1):
                hits = [hit_facts(hit, numbers) for hit in answer.hits] if answer else []
                fix = verifier.fix(frame) if verifier and hits else None
                error = error and error.replace(f"{frame.path.parent}/", "")
                facts = frame_facts(frame.index, error, None, hits, answer.estimate if answer else None, fix)
                lines[frame.index] = json.loads(line_bytes(facts))
                if progress:
                    progress(completed, len(outcomes), "frames")
        return lines

    def _verifier(
        self,
        run: BundleRun,
        outcomes: Sequence[tuple[Frame, LocalizedImage | None, str | None]],
        searched: Sequence[StoredReferenceSet],
        device: str,
    ) -> Verifier | None:
        """Looks for frames in metres as the run did; None where it did not."""
        parameters = run.fix_parameters
        if parameters is None:
            return None
        if parameters.fit_digest != FITTED.digest:
            self.notice(
                f"run {run.run} was fixed with constants of another calibration ({parameters.fit_digest[:12]}… there, "
                f"{FITTED.digest[:12]}… here): its probabilities and ellipses will differ"
            )
        results = [
            FrameResult(frame, answer.timing, tuple(answer.hits), None, answer.estimate, None)
            for frame, answer, _ in outcomes
            if answer and answer.hits
        ]
        footprint_m = combine_reference_sets([stored.reference_set for stored in searched]).footprint_m
        maps = open_reference_maps(self.db, searched, parameters.map_sd_m)
        verifier = Verifier(
            footprint_m, results, maps, FixRequest(parameters.camera, parameters.places, parameters.map_sd_m), device
        )
        for text in verifier.fit_widths():
            self.notice(text)
        return verifier

    def _compare(self, run: RunReproduction, stored: Iterator[Any], here: Lines) -> None:
        missing = frame_facts(0, "the frame is not here", None, [], None, None)
        for line in stored:
            index = line["frame_index"]
            comparison = compare_frame(line, here.get(index, {**missing, "frame_index": index}), self.tolerance)
            run.frames += 1
            run.equal_frames += comparison.verdict == "equal"
            run.close_frames += comparison.verdict == "within-tolerance"
            run.verdict = worst([run.verdict, comparison.verdict])
            run.difference = run.difference or comparison.difference
            run.deviation = run.deviation or comparison.deviation
            run.largest_score_off = max(run.largest_score_off, comparison.score_off)
            run.largest_metres_off = max(run.largest_metres_off, comparison.metres_off)


def _run_names(bundle: BundleFile) -> list[str]:
    return [name for name in bundle.names if name.startswith("runs/") and name.endswith(".json")]


def _groups(runs: Mapping[str, BundleRun]) -> list[dict[str, BundleRun]]:
    """Runs that differ in nothing but the heading searched."""
    groups: dict[str, dict[str, BundleRun]] = {}
    for name, run in runs.items():
        facts = run.model_dump(mode="json", exclude={"run", "environment", "references_state"})
        del facts["parameters"]["angle_deg"]
        groups.setdefault(json.dumps(facts, sort_keys=True), {})[name] = run
    return list(groups.values())


def _searched_set(number: int, name: str, sets: Mapping[int, StoredReferenceSet]) -> StoredReferenceSet:
    if number not in sets:
        raise InputError(
            f"reference set {name!r} is not in this data folder: ingest the same source under this name first"
        )
    return sets[number]


def _where(run: BundleRun) -> Where:
    heading = run.parameters.angle_deg
    try:
        where = Where.from_json(run.parameters.where)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"the filter of run {run.run} in the bundle cannot be used: {error}") from None
    return where if heading is None else replace(where, angles=(heading,))


def _other_answers(bundle: BundleFile) -> list[str]:
    names = [name for name in bundle.names if name.startswith("answers/") and name.endswith(".json")]
    answers = [bundle.json(name) for name in names]
    return [f"{facts.get('method')} on {facts.get('reference_set')}" for facts in answers if isinstance(facts, dict)]


def _environment_differences(run: BundleRun, backbone: Backbone, index: MirrorIndex) -> list[EnvironmentDifference]:
    """What differs, but for the way of searching: all give the same answers."""
    recorded, now = _flat(run.environment), _flat(machine(backbone.device, index.backend))
    return [
        EnvironmentDifference(name, recorded.get(name), now.get(name))
        for name in sorted((recorded.keys() | now.keys()) - {"search_way"})
        if recorded.get(name) != now.get(name)
    ]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _unique(differences: Iterable[EnvironmentDifference]) -> list[EnvironmentDifference]:
    return list({(d.name, str(d.bundle), str(d.here)): d for d in differences}.values())


def _code_difference(bundle: BundleFile) -> EnvironmentDifference | None:
    """Whether the code that wrote the bundle is another than this."""
    written_by = bundle.manifest.get("written_by")
    digest = written_by.get("code_sha256") if isinstance(written_by, Mapping) else None
    here = code_digest()
    return None if digest == here else EnvironmentDifference("code_sha256", str(digest)[:12], here[:12])
