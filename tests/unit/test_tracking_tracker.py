"""The tracker: what it claims, where it looks, and what it leaves, on a toy map whose truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.fixes import NoMatch, NotVerified, Pose2D
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Covariance, Floats, LonLat
from coarseloc.localize.tracking.kalman import PoseMeasurement, moved_state
from coarseloc.localize.tracking.motion import Displacement, displacement_covariance, guessed_displacement
from coarseloc.localize.tracking.smoothing import smoothed, smoothed_lineage
from coarseloc.localize.tracking.stored_fixes import StoredFixSearch, share_inside
from coarseloc.localize.tracking.tracker import DEFAULTS, CausalStep, LocalPlane, TrackedFrame, track

PLANE = LocalPlane(LonLat(127.0, 37.5))
WIDTH_M = 400.0
FIX_SD_M = 1.0
MAP = (-3000.0, -3000.0, 3000.0, 3000.0)  # west, south, east, north in metres


@dataclass
class ToySearch:
    """What a frame's registration would say: of its true place, and of wrong places, each with a log ratio."""

    truth: Floats
    nearby: float | None = 6.0  # log ratio of the true place in a window; None: not there
    on_map: float | None = 5.0
    wrong: Sequence[PoseMeasurement] = ()  # anywhere on the map
    error: Floats = field(default_factory=lambda: np.zeros(4))
    searches: list[str] = field(default_factory=list)

    def coverage(self, state: Floats) -> float:
        west, south, east, north = MAP
        return float(west <= state[0] <= east and south <= state[1] <= north)

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        self.searches.append("nearby")
        reach_m = max(150.0, 4 * math.sqrt(covariance[0, 0]))
        places = [*self.wrong, *self._true(self.nearby)]
        return [place for place in places if math.dist(place.mean[:2], state[:2]) <= reach_m]

    def everywhere(self) -> Sequence[PoseMeasurement]:
        self.searches.append("map")
        return [*self._true(self.on_map), *self.wrong]

    def _true(self, log_ratio: float | None) -> list[PoseMeasurement]:
        return [] if log_ratio is None or not self.coverage(self.truth) else [place(self.truth + self.error, log_ratio)]


def place(state: Floats, log_ratio: float, strong_from: float = 3.0) -> PoseMeasurement:
    covariance = np.diag(np.square([FIX_SD_M, FIX_SD_M, 0.3, 0.01]))
    return PoseMeasurement(np.array(state, float), covariance, log_ratio, log_ratio >= strong_from)


def motion(error: Floats | None = None, along_m: float = 80.0, turn_deg: float = 4.0) -> Displacement:
    across, along = (0.0, along_m) if error is None else (error[0], along_m + error[1])
    return Displacement(across, along, turn_deg, 0.0, displacement_covariance(1.8, 0.4, 0.007))


def truths(frames: int, start: Sequence[float] = (0.0, 0.0, 30.0, 0.0), turn_deg: float = 4.0) -> list[Floats]:
    state, states = np.array(start, float), []
    for _ in range(frames):
        states.append(state)
        state = moved_state(state, np.zeros((4, 4)), motion(turn_deg=turn_deg)).mean
    return states


def flight(searches: Sequence[ToySearch], seed: int = 1, turn_deg: float = 4.0) -> list[TrackedFrame]:
    """Frames with noisy odometry between all of them."""
    rng = np.random.default_rng(seed)
    frames = []
    for index, search in enumerate(searches):
        search.error = rng.normal(0, FIX_SD_M, 4) * (1, 1, 0.3, 0.01)
        step = motion(rng.normal(0, 1.8, 2), turn_deg=turn_deg + float(rng.normal(0, 0.4))) if index else None
        frames.append(TrackedFrame(index, WIDTH_M, search, step, time_s=float(index)))
    return frames


def cut(frames: list[TrackedFrame], first: int, last: int) -> list[TrackedFrame]:
    """Cloud over frames first … last - 1: nothing registers with it, it lies nowhere."""
    clouded = []
    for frame in frames:
        search = frame.search
        if first <= frame.index < last:
            search = replace(search, nearby=None, on_map=None)
        registers = not first <= frame.index <= last
        clouded.append(replace(frame, search=search, motion=frame.motion if registers else None))
    return clouded


def estimates_of(steps: Iterable[CausalStep]) -> list[TrackEstimate]:
    return [step.estimate for step in steps]


def errors_m(estimates: Sequence[TrackEstimate], states: Sequence[Floats]) -> list[float]:
    """Of what is claimed."""
    return [
        math.dist(PLANE.metres(estimate.ground), states[estimate.index][:2])
        for estimate in estimates
        if estimate.ground is not None
    ]


# --- the rules ----------------------------------------------------------------------------------


def test_a_clear_flight_is_claimed_from_its_first_frame_with_one_search_of_the_map() -> None:
    states = truths(60)
    searches = [ToySearch(state) for state in states]
    estimates = estimates_of(track(flight(searches), PLANE))
    assert [estimate.state for estimate in estimates] == ["tracking"] * 60
    assert [search.searches for search in searches] == [["map"], *[["nearby"]] * 59]
    assert estimates[-1].reset_counter == 1
    assert max(errors_m(estimates, states)) < 5.0
    assert estimates[5].speed_mps == pytest.approx(80.0, abs=5.0)
    assert all(not estimate.alternatives for estimate in estimates)


def test_the_stated_ellipse_holds_what_it_says() -> None:
    inside = []
    for seed in range(6):
        states = truths(50)
        estimates = estimates_of(track(flight([ToySearch(state) for state in states], seed), PLANE, exact_map()))
        for estimate, state in zip(estimates, states, strict=True):
            assert estimate.ground is not None
            assert estimate.ground_covariance_m2 is not None
            east_east, east_north, north_north = estimate.ground_covariance_m2
            error = np.subtract(PLANE.metres(estimate.ground), state[:2])
            inside.append(error @ np.linalg.solve([[east_east, east_north], [east_north, north_north]], error) < 5.99)
    assert 0.91 <= np.mean(inside) <= 0.985


def exact_map():
    return replace(DEFAULTS, map_sd_m=0.0)


def test_the_map_s_own_error_is_added_and_never_averaged_away() -> None:
    frames = flight([ToySearch(state) for state in truths(40)])
    last = estimates_of(track(frames, PLANE, replace(DEFAULTS, map_sd_m=3.0)))[-1]
    without = estimates_of(track(frames, PLANE, exact_map()))[-1]
    assert last.ground_covariance_m2 is not None
    assert without.ground_covariance_m2 is not None
    assert last.ground_covariance_m2.east_east == pytest.approx(without.ground_covariance_m2.east_east + 9.0)


def test_frames_without_any_evidence_are_never_claimed() -> None:
    searches = [ToySearch(state, nearby=None, on_map=None) for state in truths(30)]
    estimates = estimates_of(track(flight(searches), PLANE))
    assert {estimate.state for estimate in estimates} == {"acquiring"}
    assert all(estimate.ground is None and estimate.ground_covariance_m2 is None for estimate in estimates)


def test_cloud_is_neither_searched_nor_claimed() -> None:
    states = truths(50)
    frames = cut(flight([ToySearch(state) for state in states]), 20, 50)
    estimates = estimates_of(track(frames, PLANE))
    assert [estimate.state for estimate in estimates[:20]] == ["tracking"] * 20
    assert {estimate.state for estimate in estimates[20:]} == {"lost"}
    assert all(estimate.ground is None for estimate in estimates[20:])
    assert all(not frame.search.searches for frame in frames[20:])


def test_a_track_is_recovered_on_the_second_clear_frame_after_cloud() -> None:
    states = truths(70)
    estimates = estimates_of(track(cut(flight([ToySearch(state) for state in states]), 20, 50), PLANE))
    assert [estimate.state for estimate in estimates[49:53]] == ["lost", "lost", "recovered", "tracking"]
    assert estimates[-1].reset_counter == 2
    assert max(errors_m(estimates[:20] + estimates[50:], states)) < 5.0


def test_a_frame_that_is_not_where_guesses_let_expect_it_is_looked_for_on_the_whole_map_at_once() -> None:
    states = truths(8)
    searches = [ToySearch(state) for state in states]
    searches[7].nearby = None
    frames = cut(flight(searches), 4, 6)
    estimates = estimates_of(track(frames, PLANE))
    assert [estimate.claimed for estimate in estimates] == [True] * 4 + [False] * 3 + [True]
    assert searches[7].searches == ["nearby", "map"] and searches[3].searches == ["nearby"]


def test_a_labels_yaw_tells_the_turn_that_no_odometry_does() -> None:
    states = truths(8, turn_deg=25.0)
    plain = cut(flight([ToySearch(state) for state in states], turn_deg=25.0), 4, 5)
    labelled = [replace(frame, heading_deg=float(states[frame.index][2]) + 5.0) for frame in plain]  # off by as much
    without, within = (list(track(frames, PLANE))[5].lineage for frames in (plain, labelled))
    assert without is not None and within is not None
    errors = [abs(geo.signed_difference_deg(step.mean[2], states[5][2])) for step in (without, within)]
    assert errors[1] < 3.0 < 20.0 < errors[0]
    assert within.covariance[2, 2] < 2 * 3.1**2 < 200.0 < without.covariance[2, 2]


@pytest.mark.parametrize(("bounds_m", "length_m"), [(None, 80.0), ((100.0, 120.0), 100.0), ((0.0, 50.0), 50.0)])
def test_a_speed_bounds_a_step_that_no_odometry_tells(bounds_m, length_m) -> None:
    guess = guessed_displacement(motion(), WIDTH_M, length_bounds_m=bounds_m)
    assert guess.length_m == pytest.approx(length_m)
    free = guessed_displacement(motion(), WIDTH_M)
    assert (guess.covariance[0, 0] < free.covariance[0, 0]) == (bounds_m is not None)


def test_a_first_step_of_known_speed_is_as_far_in_every_direction() -> None:
    guess = guessed_displacement(None, WIDTH_M, length_bounds_m=(20.0, 60.0))
    assert guess.length_m == 0.0
    assert guess.covariance[0, 0] + guess.covariance[1, 1] == pytest.approx(60.0**2)


def test_one_frame_that_does_not_register_is_coasted_over_and_not_claimed() -> None:
    frames = flight([ToySearch(state) for state in truths(30)])
    frames[10] = replace(frames[10], motion=None)
    estimates = estimates_of(track(frames, PLANE))
    assert [estimate.state for estimate in estimates] == [*["tracking"] * 10, "lost", "recovered", *["tracking"] * 18]
    assert estimates[10].probability > 0.9
    assert not frames[10].search.searches
    assert frames[11].search.searches == ["nearby"]


def test_weak_measurements_that_repeat_make_no_claim() -> None:
    """A lake: every frame looks a little like the same wrong place, moved along."""
    states = truths(40)
    beside = [state + np.array([700.0, -300.0, 50.0, 0.0]) for state in states]
    turned = truths(40, beside[0])
    searches = [ToySearch(state, None, None, [place(wrong, 0.8)]) for state, wrong in zip(states, turned, strict=True)]
    estimates = estimates_of(track(flight(searches), PLANE))
    assert not any(estimate.claimed for estimate in estimates)
    assert max(estimate.probability for estimate in estimates) > 0.9  # which is why the rule is needed
    assert estimates[-1].alternatives


def test_a_planted_wrong_place_is_left_within_three_frames() -> None:
    states = truths(30)
    planted = place(np.array([900.0, -800.0, 200.0, 0.0]), 9.0)
    searches = [ToySearch(state) for state in states]
    searches[0] = ToySearch(states[0], None, None, [planted])
    estimates = estimates_of(track(flight(searches), PLANE))
    assert estimates[0].claimed
    wrong = [estimate.index for estimate in estimates if errors_m([estimate], states) > [100.0]]
    assert max(wrong) <= 3
    assert errors_m(estimates[4:], states)
    assert max(errors_m(estimates[5:], states)) < 5.0
    assert all(estimate.claimed for estimate in estimates[6:])


def test_odometry_that_was_wrong_is_left_for_a_strong_fix_on_the_same_frame() -> None:
    states = truths(20)
    frames = flight([ToySearch(state) for state in states])
    assert frames[10].motion is not None
    frames[10] = replace(frames[10], motion=replace(frames[10].motion, across_m=70.0))
    estimates = estimates_of(track(frames, PLANE))
    assert frames[10].search.searches == ["nearby", "map"]
    assert all(estimate.claimed for estimate in estimates)
    assert max(errors_m(estimates, states)) < 5.0


def test_off_the_map_odometry_carries_on_without_a_search_and_the_track_comes_back() -> None:
    states = truths(60, (2500.0, 0.0, 60.0, 0.0), 6.0)
    outside = [abs(state[0]) > 3000 or abs(state[1]) > 3000 for state in states]
    assert 10 < sum(outside) < 45
    searches = [ToySearch(state) for state in states]
    estimates = estimates_of(track(flight(searches, turn_deg=6.0), PLANE))
    first, last = outside.index(True), len(outside) - outside[::-1].index(True)
    assert all(estimate.claimed for estimate in estimates)
    assert not any(search.searches for search in searches[first + 1 : last - 1])
    assert max(errors_m(estimates, states)) < 60.0
    middle = estimates[(first + last) // 2]
    assert middle.p_off_map > 0.9
    assert middle.ground_covariance_m2 is not None
    assert middle.ground_covariance_m2.east_east > 9.0
    assert max(errors_m(estimates[last + 2 :], states)) < 6.0
    assert sum("map" in search.searches for search in searches) == 1


def test_dead_reckoning_is_claimed_as_long_as_its_ellipse_is_small() -> None:
    states = truths(150, (2900.0, 0.0, 90.0, 0.0), 0.0)
    estimates = estimates_of(track(flight([ToySearch(state) for state in states], turn_deg=0.0), PLANE))
    last = max(estimate.index for estimate in estimates if estimate.claimed)
    assert 20 < last < 149
    most_m = DEFAULTS.most_claimed_sd_footprints * WIDTH_M
    for estimate in estimates[: last + 1]:
        assert estimate.ground_covariance_m2 is not None
        sd_m = math.sqrt(np.linalg.eigvalsh(estimate.ground_covariance_m2.matrix())[-1])
        assert sd_m <= most_m + 1.0  # the map's own error


def test_ground_that_does_not_register_for_a_while_makes_a_track_blind_not_wrong() -> None:
    states = truths(40)
    searches = [
        ToySearch(state, **({"nearby": None, "on_map": None} if 15 <= i < 21 else {})) for i, state in enumerate(states)
    ]
    estimates = estimates_of(track(flight(searches), PLANE))
    assert estimates[17].p_blind > 0.5
    assert estimates[30].p_blind < 0.1
    assert max(errors_m(estimates, states)) < 20.0
    assert all(estimate.claimed for estimate in estimates[23:])
    assert any("map" in search.searches for search in searches[18:21])  # after three misses


def test_without_odometry_fixes_alone_are_followed_and_a_second_gap_ends_the_claim() -> None:
    frames = [replace(frame, motion=None, motion_source="none") for frame in flight([ToySearch(s) for s in truths(30)])]
    estimates = estimates_of(track(frames, PLANE))
    assert sum(estimate.claimed for estimate in estimates) >= 28
    assert max(errors_m(estimates, truths(30))) < 10.0
    gaps = [
        replace(frame, search=replace(frame.search, nearby=None, on_map=None)) if frame.index >= 20 else frame
        for frame in frames
    ]
    ended = estimates_of(track(gaps, PLANE))
    assert ended[19].claimed
    assert not any(estimate.claimed for estimate in ended[22:])


def test_two_equal_places_are_alternatives_and_neither_is_claimed() -> None:
    states = truths(3)
    twin = place(states[0] + np.array([0.0, 600.0, 0.0, 0.0]), 5.0)
    estimates = estimates_of(track(flight([ToySearch(states[0], wrong=[twin])]), PLANE))
    assert estimates[0].state == "acquiring"
    assert len(estimates[0].alternatives) == 2
    assert estimates[0].alternatives[0].probability == pytest.approx(estimates[0].alternatives[1].probability)


def test_a_track_is_causal_and_deterministic() -> None:
    frames = cut(flight([ToySearch(state) for state in truths(40)]), 15, 18)
    whole, again = estimates_of(track(frames, PLANE)), estimates_of(track(frames, PLANE))
    prefix = estimates_of(itertools.islice(track(iter(frames), PLANE), 25))
    for first, second in zip(whole, again, strict=True):
        assert first == second
    assert prefix == whole[:25]


def test_a_tracker_waits_for_no_later_frame() -> None:
    frames = iter(flight([ToySearch(state) for state in truths(5)]))
    steps = track(frames, PLANE)
    next(steps)
    assert next(frames).index == 1


def test_an_online_track_keeps_no_lineage() -> None:
    frames = flight([ToySearch(state) for state in truths(20)])
    steps = track(frames, PLANE, replace(DEFAULTS, keeps_lineage=False))
    assert all(step.lineage is not None and step.lineage.previous is None for step in steps)


# --- smoothing ----------------------------------------------------------------------------------


def test_smoothing_is_least_squares_over_all_of_a_lineage() -> None:
    """One axis at a time without turns: against the normal equations of the whole flight."""
    count, fixes = 12, (0, 1, 11)
    states = truths(count, (0.0, 0.0, 0.0, 0.0), 0.0)
    still = displacement_covariance(2.0, 1e-4, 1e-6)
    searches = [ToySearch(s, *((6.0, 5.0) if i in fixes else (None, None))) for i, s in enumerate(states)]
    for i in fixes:
        searches[i].error = np.array([1.5 * (-1) ** i, 0.7 * i, 0.0, 0.0])
    steps = [Displacement(0.6 * (-1) ** i, 81.0, 0.0, 0.0, still) for i in range(count)]
    frames = [TrackedFrame(i, WIDTH_M, s, steps[i] if i else None) for i, s in enumerate(searches)]
    loose = replace(DEFAULTS, most_misses=100, dropped=0.0, searched_nearby=0.0)
    causal = list(track(frames, PLANE, loose))
    assert all(step.estimate.claimed for step in causal)
    matrix, values, weights = [], [], []
    for i in fixes:
        matrix.append(np.eye(count)[i])
        values.append((states[i] + searches[i].error)[:2])
        weights.append(1 / FIX_SD_M)
    for i in range(1, count):
        matrix.append(np.eye(count)[i] - np.eye(count)[i - 1])
        values.append((steps[i].across_m, steps[i].along_m))
        weights.append(1 / 2.0)
    rows = np.array(matrix) * np.array(weights)[:, None]
    expected = np.linalg.lstsq(rows, np.array(values) * np.array(weights)[:, None], rcond=None)[0]
    variance = np.diag(np.linalg.inv(rows.T @ rows))
    assert causal[-1].lineage is not None
    lineage = list(smoothed_lineage(causal[-1].lineage))[::-1]
    assert [step.frame for step, _, _ in lineage] == list(range(count))
    for (_, mean, covariance), position, spread in zip(lineage, expected, variance, strict=True):
        assert mean[:2] == pytest.approx(position, abs=0.05)
        assert covariance[0, 0] == pytest.approx(spread, rel=0.02)


def test_smoothing_claims_what_came_before_the_first_claim_and_nothing_without_motion_or_fix() -> None:
    states = truths(60)
    searches = [
        ToySearch(state, nearby=1.0 if i < 4 else 6.0, on_map=1.0 if i < 4 else 5.0) for i, state in enumerate(states)
    ]
    causal = list(track(cut(flight(searches), 30, 36), PLANE))
    assert not causal[0].estimate.claimed
    smooth = smoothed(causal, PLANE)
    assert [estimate.index for estimate in smooth] == list(range(60))
    assert {estimate.mode for estimate in smooth} == {"smoothed"}
    assert all(estimate.claimed for estimate in smooth[:30])
    assert not any(estimate.claimed for estimate in smooth[30:37])
    assert smooth[37].state == "recovered"
    assert max(errors_m(smooth, states)) < 5.0
    assert smooth[-1].reset_counter == 2


def test_smoothing_off_the_map_is_nearer_than_dead_reckoning() -> None:
    better = []
    for seed in range(8):
        states = truths(60, (2500.0, 0.0, 60.0, 0.0), 6.0)
        steps = list(track(flight([ToySearch(s) for s in states], seed, 6.0), PLANE))
        tracks = estimates_of(steps), smoothed(steps, PLANE)
        away = [estimate.index for estimate in tracks[0] if estimate.p_off_map > 0.5]
        causal, smooth = (errors_m([estimates[i] for i in away], states) for estimates in tracks)
        better.append(np.mean(smooth) / np.mean(causal))
    assert np.mean(better) < 0.75


# --- stored fixes -------------------------------------------------------------------------------


def stored(state: Floats, probability: float = 0.99, map_sd_m: float = 1.0) -> Pose2D:
    location = PLANE.location(state[0], state[1])
    variance = FIX_SD_M**2 + map_sd_m**2
    return Pose2D(
        location, Covariance(variance, 0.0, variance), None, None, float(state[2]) % 360, 0.2, None, 5.0,
        math.exp(state[3]), 0.6, 0.3, 1, probability, "unknown", "orientation-correlation", "digest",
        (location,) * 4,
    )  # fmt: skip


def bounds():
    west, south, east, north = MAP
    low, high = PLANE.location(west, south), PLANE.location(east, north)
    return type(geo.square(low, 1.0))(low.lon, low.lat, high.lon, high.lat)


def test_stored_fixes_are_followed_and_what_was_not_found_is_no_measurement() -> None:
    rng, states = np.random.default_rng(3), truths(30)
    frames = []
    for index, state in enumerate(states):
        answer = stored(state + rng.normal(0, 1, 4) * (1, 1, 0.2, 0.005))
        answers = {7: NoMatch("ambiguous", 0.2, 0.0, 0.1, "digest"), 8: NotVerified("no references"),
                   9: stored(state + np.array([500.0, 0, 0, 0])), 10: None}  # fmt: skip
        search = StoredFixSearch(answers.get(index, answer), PLANE, bounds(), WIDTH_M, map_sd_m=1.0)
        step = motion(rng.normal(0, 1.8, 2)) if index else None
        frames.append(TrackedFrame(index, WIDTH_M, search, step))
    estimates = estimates_of(track(frames, PLANE))
    assert all(estimate.claimed for estimate in estimates)
    assert [estimate.index for estimate in estimates if not estimate.measured] == [7, 8, 9, 10]
    assert max(errors_m(estimates, states)) < 12.0


def test_a_stored_fix_gives_its_own_covariance_without_the_map_s() -> None:
    state = np.array([10.0, -20.0, 77.0, 0.02])
    search = StoredFixSearch(stored(state, 0.9, 2.0), PLANE, bounds(), WIDTH_M, map_sd_m=2.0)
    (measurement,) = search.everywhere()
    assert measurement.mean == pytest.approx(state, abs=1e-3)
    assert measurement.covariance[0, 0] == pytest.approx(FIX_SD_M**2)
    assert measurement.log_ratio == pytest.approx(math.log(9.0))
    assert not measurement.strong
    rejected = NoMatch("ambiguous", 0.2, 0.0, 0.3, "digest", stored(state, 0.3))
    (weak,) = replace(search, answer=rejected).everywhere()
    assert weak.log_ratio < 0
    assert replace(search, answer=NotVerified("gone")).everywhere() == ()


@pytest.mark.parametrize(("east", "share"), [(0.0, 1.0), (3000.0, 0.5), (3200.0, 0.0), (-3000.0, 0.5)])
def test_the_share_of_a_frame_on_the_map_is_that_of_its_ground(east: float, share: float) -> None:
    state = np.array([east, 0.0, 0.0, 0.0])
    assert share_inside(bounds(), PLANE, state, WIDTH_M, 1.0) == pytest.approx(share, abs=0.11)


def test_the_plane_s_metres_are_turned_back_into_the_same_position() -> None:
    location = PLANE.location(1234.5, -987.6)
    assert PLANE.metres(location) == pytest.approx((1234.5, -987.6), abs=1e-3)
