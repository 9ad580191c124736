"""An ingest of captures that has nothing to do, told by its question and by its files' names, sizes and times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from coarseloc import __version__
from coarseloc.core import ids
from coarseloc.core.types import EmbeddingSpec, ReferenceSet
from coarseloc.imagery.decode import SUFFIXES
from coarseloc.imagery.stated_labels import StatedLabels
from coarseloc.imagery.tree_state import tree_state
from coarseloc.store import Database, finished_ingests, references
from coarseloc.store.finished_ingests import FinishedIngest, IngestFingerprint
from ingest.worker import PASSING, IngestSummary

if TYPE_CHECKING:
    from coarseloc.imagery.captures import CaptureSource

# A file that was written when its state was taken may be written again in the same tick of its clock, and keep its
# size: two seconds on FAT, and other machines' clocks go wrong.
SETTLED_NS = 10_000_000_000
_READERS = ("pillow", "pyproj")
_PACKAGES = ("coarseloc/core", "coarseloc/imagery", "ingest")  # whose code says what is made of a tree


def fingerprint(
    root: Path, options: Mapping[str, object], specs: Callable[[], Collection[EmbeddingSpec]]
) -> IngestFingerprint | None:
    """Fingerprint an ingest of the captures in `root`, no picture opened; None where the files' state does not tell
    what opening them gives.

    options: all else of the question, as plain values and `labels`. specs: called where the state tells.
    """
    stated = options.get("labels")
    if not isinstance(stated, StatedLabels):
        stated = StatedLabels(stated if isinstance(stated, Path) else None)
    root, labels = root.resolve(), stated.path and stated.path.resolve()
    looked_ns = time.time_ns()
    state = tree_state(root, labels)
    if state is None:
        return None
    question = {
        **options, "root": str(root), "labels": [str(labels), stated.crs, sorted(stated.accepted)],
        "specs": sorted(spec.digest for spec in specs()), "suffixes": SUFFIXES,
        "code": [__version__, *map(metadata.version, _READERS), *_code()],
    }  # fmt: skip
    return IngestFingerprint(ids.digest(question), state.digest, settled=state.newest_ns + SETTLED_NS < looked_ns)


def _code() -> Iterator[tuple[str, int, int]]:
    """Each module of ours that an ingest reads files with, as (path, size, time)."""
    house = Path(__file__).parent.parent
    for path in sorted(path for package in _PACKAGES for path in (house / package).glob("*.py")):
        status = path.stat()
        yield str(path.relative_to(house)), status.st_size, status.st_mtime_ns


def recall(db: Database, of_ingest: IngestFingerprint) -> list[tuple[ReferenceSet, IngestSummary, Sequence[str]]]:
    """(set, what its ingest comes to, what is to be said of its source) of each that has nothing to do; none where the
    files have changed, or what the database held of them has. Raises StoreError where its rows are damaged."""
    with db.read() as session:
        recalled = finished_ingests.recall(session, of_ingest)
    return [
        (
            stored.reference_set,
            IngestSummary(
                stored.name, finished.views, finished.views - finished.unusable,
                failures=Counter(finished.failures), unchanged=True,
            ),
            finished.notices,
        )
        for stored, finished in recalled
    ]  # fmt: skip


def remember(
    db: Database,
    of_ingest: IngestFingerprint,
    specs: Collection[EmbeddingSpec],
    sources: Sequence[CaptureSource],
    summaries: Sequence[IngestSummary],
) -> None:
    """Record an ingest that has left nothing to do; of another nothing is recorded, and it is done in full again."""
    if not of_ingest.settled or not all(source.stays_in_root for source in sources):
        return
    finished = {}
    with db.write() as session:
        for source, summary in zip(sources, summaries, strict=True):
            stored = references.find_reference_set(session, source.reference_set.name)
            spoilt = [f for _, f in references.failures(session, stored.name) if f.stage == "read"]
            held = sum(references.count_views(session, stored.id).values())
            if any(f.kind in PASSING for f in spoilt) or held + len(spoilt) != summary.views:
                return
            finished[stored.id] = FinishedIngest(
                summary.views, len(spoilt), dict(summary.failures), list(source.notices)
            )
        finished_ingests.remember(session, of_ingest, {spec.digest for spec in specs}, finished)
