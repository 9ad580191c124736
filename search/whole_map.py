"""A flight looked for on the whole map of a reference set, stored as an answer of its own: from no run, without any
backbone. What a search's embeddings gain is told beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from coarseloc.core.filters import Where
from coarseloc.core.fixes import FrameFix, NotVerified
from coarseloc.core.types import Flight, Frame, Near
from coarseloc.localize.registration.fix import FITTED
from coarseloc.store import Database, fixes, flights, localizations
from coarseloc.store.localizations import WHOLE_MAP
from coarseloc.store.references import StoredReferenceSet
from search.map_localization import MapLocalization, MapLocalizer
from search.recorder import fix_recorder


def localize_flight(
    db: Database,
    flight: Flight,
    reference_set: StoredReferenceSet,
    localizer: MapLocalizer,
    *,
    near: Near | None,
    environment: Mapping[str, Any],
    fit_widths: Callable[[MapLocalizer, Sequence[Frame]], None],
    notice: Callable[[str], None],
) -> Iterator[MapLocalization]:
    """Look for a flight's frames in their order, each under the number that is its own; frames are saved every few
    seconds, and those of an earlier call of the same question and environment are given back without their decoding
    time.

    near: what the localizer's map was cut to. environment: what the times are taken on. fit_widths: tries the width of
    frames on the first ones, where there are any left.
    """
    with db.write() as session:
        stored = flights.save_flight(session, flight)
        facts = {"uid": reference_set.uid, **asdict(reference_set.reference_set)}
        parameters = map_parameters(localizer, near) | {"sets": [reference_set.uid], "environment": dict(environment)}
        localization = localizations.start_localization(session, stored.id, WHOLE_MAP, [], [facts], parameters)
        earlier = fixes.fixes(session, localization)
    for text in stored.notices:
        notice(text)
    frames = stored.flight.frames
    if any(frame.index not in earlier for frame in frames):
        fit_widths(localizer, frames)
    with fix_recorder(db, localization) as recorder:
        for frame in frames:
            fix = earlier.get(frame.index)
            if fix is not None:
                yield MapLocalization.of_fix(frame, fix)
                continue
            answer = localizer.localize(frame)
            fix = answer.fix or FrameFix(NotVerified(answer.error or ""))
            recorder.add((stored.frame_keys[frame.index], fix))
            yield answer
    with db.write() as session:
        localizations.finish_localization(session, localization)


def map_parameters(localizer: MapLocalizer, near: Near | None) -> dict[str, Any]:
    """All that decides answers on a map beside flight and reference set."""
    facts = localizer.map
    return {
        "camera": asdict(localizer.camera),
        "bounds": list(facts.bounds),
        "gsd_m": facts.gsd_m,
        "map_sd_m": facts.registration_sd_m,
        "where": dict(Where(near=near).to_json()),
        "fit_digest": FITTED.digest,
    }
