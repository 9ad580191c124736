"""What decides a registration's numbers beside its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

from coarseloc.localize.registration.spectra import Hypotheses


@dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """Of `registrar.register`, its coarse step, its fine one and its finest."""

    coarse_px: int = 64  # a footprint's width, and half of it to begin with; scores at 48 or 32 alone lose places
    fine_px: int = 96  # at most
    finest_px: int = 256  # at most
    window_footprints: float = 1.75  # of a candidate's coarse window
    reach_footprints: float = 0.375  # of a frame's middle from a candidate's centre, on either axis
    apart_footprints: float = 0.25  # nearer poses are the same one
    refined: int = 3  # places that are refined
    map_refined: int = 6  # of a whole map
    rival_share: float = 0.6  # of the best coarse score: below it no place is refined, but the second one
    doubtful_score: float = 0.45  # of the best place: below it twice as many are refined, lest it lack a rival
    map_peaks: int = 6  # of each block of a whole map
    block_px: int = 384  # of a whole map's blocks, at most: larger ones do not stay in the cache
    fine_rounds: int = 1  # two gain nothing: only the best pose's metres count, and those are found anew
    finest_rounds: int = 3
    perspective: bool = True
    tilt_sd_deg: float = 5.0  # what a frame's tilt is expected to be: keeps one that nothing tells near 0
    hypotheses: Hypotheses = field(default_factory=Hypotheses)


DEFAULTS = RegistrationSettings()
