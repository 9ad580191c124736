"""Sentences that several sections of a report share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coarseloc.embedding import specs
from coarseloc.i18n import Translator


def stand_ins(backbones: Iterable[str], say: Translator) -> list[str]:
    """A warning where some are none of the six DINOv3 backbones."""
    known = {name for name, row in specs.BACKBONES.items() if row.is_dinov3}
    strangers = [name for name in dict.fromkeys(backbones) if name not in known]
    warning = say(
        "{names}: none of the six DINOv3 backbones. Read their figures as what this pipeline does with them, "
        "not as DINOv3's."
    )
    return [warning.format(names=", ".join(strangers))] if strangers else []


def how_timed(batch: int | None, say: Translator) -> str:
    """Whether a time is a frame's own, or its share of a batch's."""
    if batch is None:
        return say("batch size not recorded")
    if batch == 1:
        return say("one frame at a time")
    return say("batches of up to {n}, their time divided by their frames").format(n=batch)


def threads_of(threads: Mapping[str, int] | None, say: Translator) -> str:
    """`search.environment.threads` as a reader sees them; an older run does not record them."""
    if not threads:
        return say("threads not recorded")
    return say("torch {torch}, FAISS {faiss}, OpenMP {omp} threads").format(**threads)
