"""`--precision auto`: the precision that a set holds already, else the fastest that finds the same places."""

from __future__ import annotations

from coarseloc.core import ids
from coarseloc.core.types import EmbeddingSpec, TileSource, UInt8, View
from coarseloc.embedding import precision_trial
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import Database, embeddings, references


def choose_precision(db: Database, encoders: Encoders, spec: EmbeddingSpec, source: TileSource) -> str:
    """Choose the precision of a backbone's new embeddings of a source, and set it in `encoders`.

    Returns which one, and by what figures, for the user. spec: the backbone's in fp32.
    """
    name, held = spec.backbone, _held_precision(db, spec, source)
    if held is not None:
        encoders.choose_precision(name, held)
        return f"{name}: {held}, as {source.reference_set.name} holds already"
    pictures = _sample_views(source, precision_trial.PICTURES)
    if len(pictures) < precision_trial.PICTURES:
        return f"{name}: fp32, as the set has only {len(pictures)} views to try other precisions on"
    trials = precision_trial.try_precisions(
        lambda precision: encoders.spec(name, precision=precision), encoders.load, pictures
    )
    chosen = precision_trial.fastest(trials)
    encoders.choose_precision(name, chosen.precision)
    figures = "; ".join(
        f"{trial.precision} {trial.ms:.1f} ms a picture, the same nearest view for {trial.agreement:.1%}, "
        f"1 - cosine at most {trial.drift:.1g}"
        for trial in trials
    )
    return f"{name}: {chosen.precision} is chosen, the fastest that finds the same places ({figures})"


def _held_precision(db: Database, spec: EmbeddingSpec, source: TileSource) -> str | None:
    with db.read() as session:
        for stored in references.reference_sets(session):
            if stored.name == ids.label(source.reference_set.name):
                for candidate in embeddings.specs(session, stored.id):
                    if (candidate.backbone, candidate.input_px, candidate.fit) == (
                        spec.backbone,
                        spec.input_px,
                        spec.fit,
                    ):
                        return candidate.precision
    return None


def _sample_views(source: TileSource, count: int) -> list[UInt8]:
    """Read up to `count` views [H, W, 3] of one size from tiles all over a source."""
    angles = source.reference_set.angles
    step = max(1, len(source.tiles) * len(angles) // count)
    views = (view for tile in source.tiles[::step] for view in source.views(tile, angles))
    pictures = [view.pixels for view in views if isinstance(view, View)]
    return [picture for picture in pictures if picture.shape == pictures[0].shape][:count]
