"""A frame's answer in a bundle held against its answer here: equal to the bit, within a tolerance, or where it first
differs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from coarseloc.core import geo
from search.bundle.records import NOT_COMPARED, BundleAnswer, BundleFix, BundleHit, BundlePosition, parse

Verdict = Literal["equal", "within-tolerance", "different", "not-run"]
Part = Literal["error", "hits", "digest", "tile", "score", "best-place", "fix", "heading", "field"]

SCORE_TOLERANCE = 1e-4  # of a cosine: fp32 on two devices differs by less, another picture by more
METRES_TOLERANCE = 1.0  # of a position
HEADING_TOLERANCE_DEG = 1.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ without being called so."""

    score: float = SCORE_TOLERANCE  # of a cosine
    metres: float = METRES_TOLERANCE  # of best places and fixes
    heading_deg: float = HEADING_TOLERANCE_DEG  # of the same


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """Where an answer first differs. rank: None where it is not of a hit."""

    frame_index: int
    part: Part
    rank: int | None
    bundle: str
    here: str

    def __str__(self) -> str:
        rank = "" if self.rank is None else f", rank {self.rank}"
        return f"frame {self.frame_index}{rank}: {self.part} is {self.here}, the bundle has {self.bundle}"


@dataclass(slots=True)
class FrameComparison:
    """One frame. `difference` is the first one beyond the tolerance, `deviation` the first one within it."""

    verdict: Verdict = "equal"
    difference: FrameDifference | None = None
    deviation: FrameDifference | None = None
    score_off: float = 0.0
    metres_off: float = 0.0


def compare_frame(stored: Mapping[str, Any], here: Mapping[str, Any], tolerance: Tolerance) -> FrameComparison:
    """Compare a line of a bundle with what the same frame gives here, both as JSON. Times are never compared.

    Raises InputError where the bundle's line is of another shape.
    """
    if compared(stored) == compared(here):
        return FrameComparison()
    comparison = _AnswerComparison(
        parse(BundleAnswer, stored, "a line"), parse(BundleAnswer, here, "an answer"), tolerance
    )
    return comparison.result()


def compared(line: Mapping[str, Any]) -> dict[str, Any]:
    """What of a line is held to the bit: all but times and names of the data folder's own."""
    facts = {name: line.get(name) for name in ("error", "hits", "best_place", "fix")}
    if isinstance(fix := facts["fix"], Mapping) and isinstance(conditions := fix.get("conditions"), Mapping):
        kept = {name: value for name, value in conditions.items() if name not in NOT_COMPARED}
        facts["fix"] = {**fix, "conditions": kept}
    return facts


@dataclass(slots=True)
class _AnswerComparison:
    stored: BundleAnswer
    here: BundleAnswer
    tolerance: Tolerance
    comparison: FrameComparison = field(default_factory=FrameComparison)

    def result(self) -> FrameComparison:
        comparison = self.comparison
        for within, difference in self._differences():
            if not within:
                comparison.verdict, comparison.difference = "different", comparison.difference or difference
            else:
                comparison.deviation = comparison.deviation or difference
        if comparison.verdict == "equal":
            comparison.verdict = "within-tolerance"
            comparison.deviation = comparison.deviation or self._at("field", "a field", "another value")
        return comparison

    def _differences(self) -> Iterator[tuple[bool, FrameDifference]]:
        """(whether it is within the tolerance, a difference), hits first."""
        stored, here = self.stored, self.here
        if stored.error != here.error:
            yield False, self._at("error", str(stored.error), str(here.error))
        for ours, theirs in zip(here.hits, stored.hits, strict=False):
            yield from self._hit_differences(theirs, ours)
        if len(stored.hits) != len(here.hits):
            yield False, self._at("hits", f"{len(stored.hits)}", f"{len(here.hits)}")
        before, now = stored.best_place, here.best_place
        locations = [None if place is None else place.location for place in (before, now)]
        headings = [None if place is None else place.heading_deg for place in (before, now)]
        yield from self._position_difference("best-place", *locations)
        yield from self._heading_difference(*headings)
        yield from self._fix_differences(stored.fix, here.fix)

    def _hit_differences(self, theirs: BundleHit, ours: BundleHit) -> Iterator[tuple[bool, FrameDifference]]:
        score_off = abs(ours.score - theirs.score)
        self.comparison.score_off = max(self.comparison.score_off, score_off)
        if ours.tile != theirs.tile:
            within = score_off <= self.tolerance.score and self._is_tie(theirs, ours)
            yield within, self._at("tile", theirs.tile_text, ours.tile_text, theirs.rank)
        elif ours.content_sha256 != theirs.content_sha256:
            theirs_text, ours_text = (f"{hit.content_sha256[:12]}… of {hit.tile_text}" for hit in (theirs, ours))
            yield False, self._at("digest", theirs_text, ours_text, theirs.rank)
        if score_off:
            yield (
                score_off <= self.tolerance.score,
                self._at("score", repr(theirs.score), repr(ours.score), theirs.rank),
            )

    def _is_tie(self, theirs: BundleHit, ours: BundleHit) -> bool:
        """Whether two hits may have changed places: the bundle's list has ours with the same score, but for the
        tolerance, or could have had it below its end."""
        scores = {hit.tile: hit.score for hit in self.stored.hits}
        expected = scores.get(ours.tile, self.stored.hits[-1].score)
        return abs(expected - theirs.score) <= self.tolerance.score

    def _fix_differences(
        self, stored: BundleFix | None, here: BundleFix | None
    ) -> Iterator[tuple[bool, FrameDifference]]:
        if _fix_text(stored) != _fix_text(here):
            yield False, self._at("fix", _fix_text(stored), _fix_text(here))
        elif stored and here and stored.pose and here.pose:
            yield from self._position_difference("fix", stored.pose.ground, here.pose.ground)
            yield from self._position_difference("fix", stored.pose.aircraft, here.pose.aircraft)
            yield from self._heading_difference(stored.pose.heading_deg, here.pose.heading_deg)

    def _heading_difference(self, stored: float | None, here: float | None) -> Iterator[tuple[bool, FrameDifference]]:
        if stored != here:
            off = 360.0 if stored is None or here is None else geo.heading_difference(stored, here)
            yield off <= self.tolerance.heading_deg, self._at("heading", f"{stored}°", f"{here}°")

    def _position_difference(
        self, part: Part, stored: BundlePosition | None, here: BundlePosition | None
    ) -> Iterator[tuple[bool, FrameDifference]]:
        if stored is None or here is None:
            if stored is not here:
                yield (
                    False,
                    self._at(part, "none" if stored is None else "a position", "a position" if here else "none"),
                )
            return
        metres = float(geo.distance_m(stored.lon, stored.lat, here.lon, here.lat))
        self.comparison.metres_off = max(self.comparison.metres_off, metres)
        if stored != here:
            texts = [f"{place.lat:.7f}, {place.lon:.7f}" for place in (stored, here)]
            yield metres <= self.tolerance.metres, self._at(part, texts[0], f"{texts[1]} ({metres:.3g} m away)")

    def _at(self, part: Part, stored: str, here: str, rank: int | None = None) -> FrameDifference:
        return FrameDifference(self.stored.frame_index, part, rank, stored, here)


def _fix_text(fix: BundleFix | None) -> str:
    if fix is None:
        return "none"
    if fix.match is None:
        return "not verified"
    return "a match" if fix.match else f"no match: {fix.reason}"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("different", "not-run", "within-tolerance", "equal")
    return next((verdict for verdict in order if verdict in verdicts), "not-run")
