"""Whether the expected width of a flight's frames fits its first ones; where it does not, the scale that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from coarseloc.core.camera import ALTITUDE_AND_FOV, REFERENCE_FOOTPRINT, FootprintRule, FootprintWidth
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import FixAnswer, Pose2D
from coarseloc.core.types import Frame
from coarseloc.localize.registration.registrar import AGREEING_FRAMES, SCANNED_SCALES, locked_scale
from coarseloc.localize.registration.settings import DEFAULTS, RegistrationSettings
from coarseloc.localize.registration.spectra import Hypotheses

T = TypeVar("T")

FIRST_FRAMES = 5

SCANNING = replace(DEFAULTS, hypotheses=Hypotheses(SCANNED_SCALES), block_px=768)
"""Blocks are larger than the cache likes: a frame at the largest scale takes three quarters of a smaller one."""

_ABOVE_SEA = SCANNED_SCALES[0] / SCANNED_SCALES[-1]
"""Of an altitude above sea, around which the scales continue below those of one above ground: to 0.23."""

Register = Callable[[Frame, FootprintWidth, RegistrationSettings], FixAnswer]
"""(frame, its expected width on the ground, settings) → the answer; windows must hold a frame at the largest of the
settings' scales. An image that cannot be read is `NotVerified`."""


class FrameWidths(Generic[T]):
    """How wide a flight's frames are on the ground, tried on its first ones; what these were answered is kept, so that
    no frame is registered twice at one width."""

    def __init__(
        self,
        rule: FootprintRule,
        localize: Callable[[Frame, FootprintWidth, RegistrationSettings], T],
        answer_of: Callable[[T], FixAnswer],
    ) -> None:
        """localize: (frame, its width, settings) → what is known of it then; answer_of: that."""
        self._rule, self._localize, self._answer_of = rule, localize, answer_of
        self._first: dict[tuple[int, float], T] = {}  # by frame index and width in metres

    def fit(self, frames: Sequence[Frame]) -> list[str]:
        """Take the rule whose widths fit a flight's first frames, see `fitted_rule`; returns notices.

        Raises InputError where nothing says the width of any frame.
        """
        self._rule, notices = fitted_rule(frames, self._rule, self._try)
        return notices

    def width(self, frame: Frame) -> FootprintWidth:
        """Of one frame. Raises InputError where nothing says."""
        return self._rule.width(frame.filename, frame.truth.above_ground_m)

    def localize(self, frame: Frame, width: FootprintWidth) -> T:
        """What is known of a frame at its width."""
        first = self._first.pop((frame.index, width.metres), None)
        return self._localize(frame, width, DEFAULTS) if first is None else first

    def _try(self, frame: Frame, width: FootprintWidth, settings: RegistrationSettings) -> FixAnswer:
        localization = self._localize(frame, width, settings)
        if settings == DEFAULTS:
            self._first[frame.index, width.metres] = localization
        return self._answer_of(localization)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The first frames at the width of one rule."""

    rule: FootprintRule
    widths: Sequence[tuple[Frame, FootprintWidth]]

    def __str__(self) -> str:
        low, high = (bound * self.rule.scanned_scale for bound in (SCANNED_SCALES[0], SCANNED_SCALES[-1]))
        return f"scales from {low:.2f} to {high:.2f} of {self.rule.scanned_basis}"

    def scales(self, register: Register, settings: RegistrationSettings) -> list[float]:
        """Of those that match; it ends when these are enough, or can no longer be."""
        scales: list[float] = []
        for count, (frame, width) in enumerate(self.widths):
            if len(scales) == AGREEING_FRAMES or len(scales) + len(self.widths) - count < AGREEING_FRAMES:
                break
            answer = register(frame, width, settings)
            if isinstance(answer, Pose2D):
                scales.append(answer.scale)
        return scales


def fitted_rule(frames: Sequence[Frame], rule: FootprintRule, register: Register) -> tuple[FootprintRule, list[str]]:
    """(the rule whose widths fit a flight's frames, notices of what was scanned).

    A width that is given is not questioned, nor is one of fewer than three frames. Else the first five frames are
    registered at the rule's width; where three match, it stays. Otherwise they are registered over `SCANNED_SCALES`
    around altitude by field of view, then around the references' footprint (where there is none, below the altitude's
    own: it may be above sea). The first scale that three agree on is taken. Raises InputError where nothing says the
    width of any frame.
    """
    expected = _Trial(rule, _widths(frames, rule))
    if rule.camera.footprint_m is not None or len(expected.widths) < AGREEING_FRAMES:
        return rule, []
    if len(expected.scales(register, DEFAULTS)) >= AGREEING_FRAMES:
        return rule, []
    nominal = expected.widths[0][1]
    unfit = (
        f"fewer than {AGREEING_FRAMES} of the {len(expected.widths)} first frames match the map at the width that "
        f"{nominal.source} gives ({nominal.metres:.0f} m)"
    )
    trials = _trials(frames, rule)
    for trial in trials:
        scale = locked_scale(trial.scales(register, SCANNING))
        if scale is not None:
            locked = replace(trial.rule, scanned_scale=trial.rule.scanned_scale * scale)
            return locked, [
                f"{unfit}; of {trial}, {AGREEING_FRAMES} of them agree on {locked.scanned_scale:.2f}, "
                f"{trial.widths[0][1].metres * scale:.0f} m: all frames are taken to have this scale. "
                "Where it is wrong, give --footprint-m"
            ]
    return rule, [
        f"{unfit}, nor do {AGREEING_FRAMES} agree on one of {' and '.join(map(str, trials))}: the width stays. Where "
        "the frames are on the map, give their width with --footprint-m"
    ]


def _trials(frames: Sequence[Frame], rule: FootprintRule) -> list[_Trial]:
    """What is scanned: each basis of a width that the first frames have."""
    candidates = []
    if rule.camera.half_fov_tan is not None:
        candidates.append(replace(rule, scanned_basis=ALTITUDE_AND_FOV))
    if rule.reference_footprint_m is not None:
        candidates.append(replace(rule, scanned_basis=REFERENCE_FOOTPRINT))
    elif candidates:
        candidates.append(replace(candidates[0], scanned_scale=_ABOVE_SEA))
    trials = []
    for candidate in candidates:
        by_altitude = candidate.scanned_basis == ALTITUDE_AND_FOV
        based = [frame for frame in frames if not by_altitude or (frame.truth.above_ground_m or 0.0) > 0]
        if based:
            trials.append(_Trial(candidate, _widths(based, candidate)))
    return trials


def _widths(frames: Sequence[Frame], rule: FootprintRule) -> list[tuple[Frame, FootprintWidth]]:
    """Of the first frames whose width the rule says. Raises InputError where it says none."""
    widths: list[tuple[Frame, FootprintWidth]] = []
    error: InputError | None = None
    for frame in frames:
        try:
            width = rule.width(frame.filename, frame.truth.above_ground_m)
        except InputError as missing:
            error = error or missing
            continue
        widths.append((frame, width))
        if len(widths) == FIRST_FRAMES:
            break
    if error is not None and not widths:
        raise error
    return widths
