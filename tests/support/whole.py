"""All that a database holds of a reference set under a spec, at once: for tests that compare it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coarseloc.core.types import Float32, TileFacts
from coarseloc.store import Session, embeddings
from coarseloc.store.matrix import load_vectors


class Whole(NamedTuple):
    version: str
    rotated_tile_ids: list[int]  # by tile, then angle
    facts: list[TileFacts]
    vectors: Float32  # [N, D]


def whole(session: Session, reference_set_id: int, spec_id: int) -> Whole:
    stored = load_vectors(session, reference_set_id, spec_id)
    keys = stored.rotated_tile_ids.tolist()
    facts = embeddings.facts_by_key(session, keys)
    vectors = np.concatenate([np.empty((0, stored.dim), np.float32), *stored.parts])
    return Whole(stored.version, keys, [facts[key][0] for key in keys], vectors)
