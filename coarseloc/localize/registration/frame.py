"""A frame's luma at any resolution, warped onto a map window."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from coarseloc.core.camera import Distortion
from coarseloc.core.types import Floats, UInt8
from coarseloc.localize.registration.field import blur, luma_of, orientation_field
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose, to_ground
from coarseloc.localize.registration.threads import one_torch_thread

_FINEST = 1.5  # pixels of the pooled frame per pixel of a window, at least: what interpolation needs


class FrameRaster:
    """A frame as luma on a device; its pooled copies are kept, so that each resolution is reduced once."""

    def __init__(self, pixels: UInt8, geometry: FrameGeometry, device: str = "cpu") -> None:
        """pixels: uint8 [H, W, 3], RGB, as `geometry` says; device: "cpu", "cuda", "cuda:0", …"""
        if pixels.shape[:2] != (geometry.height_px, geometry.width_px):
            raise ValueError(f"a frame of {pixels.shape[:2]} px: expected {(geometry.height_px, geometry.width_px)}")
        self.geometry = geometry
        self.device = torch.device(device)
        with one_torch_thread():
            self._luma = luma_of(torch.from_numpy(np.array(pixels)).to(self.device))
        self._reduced: dict[tuple[int, float], Tensor] = {}

    @property
    def pixel_m(self) -> float:
        """Of the nominal footprint."""
        return self.geometry.footprint_m / self.geometry.width_px

    def warp(self, pose: WindowPose, pixel_m: float, height: int, width: int) -> tuple[Tensor, Tensor]:
        """(luma float32 [height, width], mask float32 [height, width]) on a window's pixels of `pixel_m` metres.

        The mask is the share of each pixel that the frame covers; luma outside it is the frame's, reflected at its
        borders, so that its border is no edge. A lens's distortion is undone on the way, in the same interpolation.
        """
        factor, reduced = self._at(pixel_m / pose.scale)
        rows, columns = reduced.shape
        to_frame = np.linalg.inv(to_ground(pose, self.geometry))
        half = self.geometry.width_px / factor / 2  # pooled pixels per frame coordinate
        middle = np.array([half, self.geometry.height_px / factor / 2])
        to_pooled = np.array([[half, 0.0, middle[0]], [0.0, half, middle[1]], [0.0, 0.0, 1.0]]) @ to_frame
        x, y = _projected(to_pooled @ np.diag([pixel_m, pixel_m, 1.0]), height, width, self.device)
        per_pixel = pixel_m / (pose.scale * self.pixel_m * factor)  # pooled pixels per window pixel
        width_pooled, height_pooled = self.geometry.width_px / factor, self.geometry.height_px / factor
        mask = _coverage(x, width_pooled, per_pixel) * _coverage(y, height_pooled, per_pixel)
        if self.geometry.distortion is not None:
            x, y = self._distorted(_reflected(x, width_pooled), _reflected(y, height_pooled), half)
            pictured = _coverage(x, width_pooled, per_pixel) * _coverage(y, height_pooled, per_pixel)
            mask = torch.minimum(mask, pictured)
        grid = x.new_empty((height, width, 2))
        for axis, (place, size) in enumerate(((x, columns), (y, rows))):
            torch.mul(place, 2.0 / size, out=grid[..., axis]).sub_(1.0)
        luma = functional.grid_sample(
            reduced[None, None], grid[None], mode="bicubic", padding_mode="reflection", align_corners=False
        )[0, 0]
        return luma, mask

    def field(self, pose: WindowPose, pixel_m: float, height: int, width: int) -> tuple[Tensor, Tensor]:
        """(orientation field complex64, mask float32), both [height, width], of `warp`."""
        luma, mask = self.warp(pose, pixel_m, height, width)
        return orientation_field(luma), mask

    def upright(self, pixel_m: float, scale: float, oversampling: int) -> Tensor:
        """The field complex64 [h, w] of the whole frame, its own up, `oversampling` pixels per `pixel_m` metres of
        ground at this scale."""
        fine_m = pixel_m / oversampling
        width = max(4, round(scale * self.geometry.footprint_m / fine_m))
        height = max(4, round(scale * self.geometry.footprint_m * self.geometry.aspect / fine_m))
        pose = WindowPose(width * fine_m / 2, height * fine_m / 2, 0.0, scale)
        luma, _ = self.warp(pose, fine_m, height, width)
        return orientation_field(luma, oversampling=oversampling)

    def _distorted(self, x: Tensor, y: Tensor, half: float) -> tuple[Tensor, Tensor]:
        """Where the lens pictures what a pinhole camera pictures at (x, y), both in pooled pixels; `half` a width."""
        distortion, half_fov_tan = self.geometry.distortion, self.geometry.half_fov_tan
        if distortion is None or half_fov_tan is None:
            return x, y
        middle_y, per_ray = half * self.geometry.aspect, half / half_fov_tan
        x, y = distorted((x - half) / per_ray, (y - middle_y) / per_ray, distortion)
        return x * per_ray + half, y * per_ray + middle_y

    def _at(self, pixel_m: float) -> tuple[int, Tensor]:
        """(frame pixels per pooled pixel, the frame pooled and smoothed for sampling every `pixel_m` metres).

        Pooling and Gaussian together have the variance of a box of `pixel_m`: the blur of a map cut at that size.
        """
        ratio = max(1.0, pixel_m / self.pixel_m)
        factor = max(1, int(ratio / _FINEST))
        left = ratio / factor
        key = (factor, round(left, 1))
        if key not in self._reduced:
            luma = self._luma
            if factor > 1:
                rows, columns = (-side % factor for side in luma.shape)
                padded = functional.pad(luma[None, None], (0, columns, 0, rows), mode="replicate")
                luma = functional.avg_pool2d(padded, factor)[0, 0]
            sigma = math.sqrt(max(0.0, (key[1] ** 2 - 1.0) / 12.0))
            self._reduced[key] = blur(luma, sigma) if sigma > 0.2 else luma
        return factor, self._reduced[key]


def _projected(to_pooled: Floats, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where a window's pixel centres lie in a pooled frame: (x, y), float32 [height, width] each."""
    h = torch.tensor(to_pooled / to_pooled[2, 2], dtype=torch.float64)
    column = torch.arange(width, dtype=torch.float64) + 0.5
    row = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None]

    def plane(line: int) -> Tensor:
        """A line of h · (column, row, 1): of two terms, each rounded once."""
        across, down = h[line, 0] * column, h[line, 1] * row + h[line, 2]
        return across.to(device, torch.float32) + down.to(device, torch.float32)

    x, y = plane(0), plane(1)
    if h[2, 0] != 0.0 or h[2, 1] != 0.0:
        depth = plane(2).clamp_min_(1e-3)  # beyond the horizon: outside the frame
        x, y = x.div_(depth), y.div_(depth)
    return x, y


def distorted(x: Tensor, y: Tensor, distortion: Distortion) -> tuple[Tensor, Tensor]:
    """Where a lens pictures the rays (x, y, 1) of a pinhole camera: the formulas of `core.camera.Distortion`."""
    d, r2 = distortion, x * x + y * y
    radial = 1.0 + r2 * (d.k1 + r2 * (d.k2 + r2 * d.k3))
    product = 2.0 * x * y
    return (
        x * radial + d.p1 * product + d.p2 * (r2 + 2.0 * x * x),
        y * radial + d.p1 * (r2 + 2.0 * y * y) + d.p2 * product,
    )


def _reflected(coordinate: Tensor, size: float) -> Tensor:
    """A coordinate folded into [0, size]: a lens's polynomial says nothing of rays beyond its picture."""
    return size - (torch.remainder(coordinate, 2.0 * size) - size).abs()


def _coverage(coordinate: Tensor, size: float, per_pixel: float) -> Tensor:
    """Share of a window pixel inside [0, size] of one axis, its edge softened over one window pixel."""
    inside = torch.minimum(coordinate, size - coordinate)
    return (inside / per_pixel + 0.5).clamp(0.0, 1.0)
