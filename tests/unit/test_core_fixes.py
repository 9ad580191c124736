"""The ellipse of a covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core.fixes import ellipse
from coarseloc.core.types import Covariance

AXES = st.floats(0.01, 1000.0)


@given(one=AXES, other=AXES, azimuth_deg=st.floats(0, 179.9), share=st.floats(0.1, 0.999))
def test_an_ellipse_has_the_axes_and_the_azimuth_that_its_covariance_was_made_of(one, other, azimuth_deg, share):
    major, minor = max(one, other), min(one, other)
    turned = math.radians(azimuth_deg)
    along = np.array([math.sin(turned), math.cos(turned)])
    across = np.array([along[1], -along[0]])
    matrix = major**2 * np.outer(along, along) + minor**2 * np.outer(across, across)
    made = ellipse(Covariance(matrix[0, 0], matrix[0, 1], matrix[1, 1]), share)
    sigmas = math.sqrt(-2 * math.log(1 - share))
    assert made.major_m == pytest.approx(major * sigmas, rel=1e-6)
    assert made.minor_m == pytest.approx(minor * sigmas, rel=1e-6, abs=1e-4 * made.major_m)
    if major > 1.01 * minor:
        apart = abs(made.azimuth_deg - azimuth_deg)
        assert min(apart, 180.0 - apart) < 1e-4


@pytest.mark.parametrize("east_north", [0.0, -1e-300, -1e-20, 1e-20])
def test_an_azimuth_is_never_180(east_north):
    assert 0.0 <= ellipse(Covariance(1.0, east_north, 4.0)).azimuth_deg < 180.0


@given(st.floats(0.1, 100.0), st.floats(0.1, 100.0), st.floats(0.0, 179.9))
def test_the_ellipse_has_the_covariances_axes(first: float, second: float, azimuth_deg: float):
    major, minor = max(first, second) * 1.01, min(first, second)
    angle = math.radians(azimuth_deg)
    axis = np.array([math.sin(angle), math.cos(angle)])  # (east, north)
    matrix = minor**2 * np.eye(2) + (major**2 - minor**2) * np.outer(axis, axis)
    drawn = ellipse(Covariance(matrix[0, 0], matrix[0, 1], matrix[1, 1]))
    assert math.isclose(drawn.major_m, 2.4477 * major, rel_tol=1e-3)
    assert math.isclose(drawn.minor_m, 2.4477 * minor, rel_tol=1e-3)
    assert abs(math.sin(math.radians(drawn.azimuth_deg - azimuth_deg))) < 1e-3


@pytest.mark.parametrize(
    ("covariance", "seed", "within"), [(Covariance(9.0, 3.0, 4.0), 3, 0.005), (Covariance(4.0, 1.5, 2.0), 1, 0.006)]
)
def test_95_percent_of_normal_errors_lie_in_the_ellipse(covariance: Covariance, seed: int, within: float):
    errors = np.random.default_rng(seed).multivariate_normal([0.0, 0.0], covariance.matrix(), 20_000)
    drawn = ellipse(covariance)
    turned = math.radians(drawn.azimuth_deg)
    along = errors @ [math.sin(turned), math.cos(turned)]
    across = errors @ [math.cos(turned), -math.sin(turned)]
    inside = (along / drawn.major_m) ** 2 + (across / drawn.minor_m) ** 2 <= 1
    assert abs(inside.mean() - 0.95) < within
