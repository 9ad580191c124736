"""`flight.toml`: what only its user knows of a flight – its camera, its clock, and how far off its truth may be."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coarseloc.core import files
from coarseloc.core.camera import BoresightLeg, Camera, Distortion, fov_deg_of
from coarseloc.core.clock import parse_utc_offset
from coarseloc.core.errors import InputError
from coarseloc.core.types import Doubt
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.imagery.stated_labels import StatedLabels

FILE_NAME = "flight.toml"

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Coefficient = Annotated[float, Field(allow_inf_nan=False)]
_Tilt = Annotated[float, Field(ge=-45, le=45)]  # registration looks for frames that were taken downward
_FOV_KEYS = (("fov_deg",), ("focal_length_mm", "sensor_width_mm"), ("focal_length_px", "image_width_px"))


class FlightConditions(NamedTuple):
    """What a flight.toml says; `truth_sd_m` is None where it does not."""

    camera: Camera
    truth_sd_m: float | None = None  # per axis
    time: StatedTime = StatedTime()
    labels: StatedLabels = StatedLabels()


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # true is no number, "60" none either


class CameraTable(_Table):
    """`[camera]`, as `docs/files.md` describes it."""

    footprint_m: _Positive | None = None
    fov_deg: Annotated[float, Field(gt=0, lt=180)] | None = None
    focal_length_mm: _Positive | None = None
    sensor_width_mm: _Positive | None = None
    focal_length_px: _Positive | None = None
    image_width_px: _Positive | None = None
    distortion: Annotated[list[_Coefficient], Field(min_length=4, max_length=5)] | None = None
    stabilised: bool | None = None
    mount_yaw_deg: Annotated[float, Field(ge=-360, le=360)] | None = None
    mount_pitch_deg: _Tilt | None = None
    mount_roll_deg: _Tilt | None = None
    attitude_sd_deg: _Positive | None = None

    def camera(self) -> Camera:
        """Raises ValueError where its keys do not fit together."""
        fov_deg = self._fov_deg()
        if self.distortion is not None and fov_deg is None:
            raise ValueError("`distortion` needs the focal length: give focal_length_px and image_width_px, or fov_deg")
        return Camera(
            self.footprint_m,
            fov_deg,
            self.stabilised,
            None if self.distortion is None else Distortion(*self.distortion),
            self.mount_yaw_deg,
            self.mount_pitch_deg,
            self.mount_roll_deg,
            attitude_sd_deg=self.attitude_sd_deg,
        )

    def _fov_deg(self) -> float | None:
        values = [[getattr(self, key) for key in keys] for keys in _FOV_KEYS]
        for keys, pair in zip(_FOV_KEYS, values, strict=True):
            if None in pair and pair != [None] * len(pair):
                absent, present = (keys[pair.index(None)], keys[1 - pair.index(None)])
                raise ValueError(f"`{present}` is there without `{absent}`: the two give the field of view")
        stated = [pair for pair in values if None not in pair]
        if len(stated) > 1:
            choices = ", or ".join(" and ".join(keys) for keys in _FOV_KEYS)
            raise ValueError(f"the field of view is there {len(stated)} times: give {choices}")
        if not stated:
            return None
        return float(stated[0][0]) if len(stated[0]) == 1 else fov_deg_of(*stated[0])


class TruthTable(_Table):
    """`[truth]`."""

    sd_m: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    accepted: list[Doubt] = Field(default=[])
    label_crs: str | None = None

    def stated(self) -> StatedLabels:
        return StatedLabels(None, self.label_crs, frozenset(self.accepted))


class TimeTable(_Table):
    """`[time]`."""

    interval_s: _Positive | None = None
    utc_offset: str | None = None

    def stated(self) -> StatedTime:
        """Raises InputError where its offset is none."""
        return StatedTime(self.interval_s, None if self.utc_offset is None else parse_utc_offset(self.utc_offset))


class BoresightTable(_Table):
    """`[[boresight]]`, one a leg: what `coarseloc boresight --apply` writes."""

    first: str
    last: str
    pitch_deg: _Tilt
    roll_deg: _Tilt
    sd_deg: _Positive


class _FlightTables(_Table):
    camera: CameraTable = CameraTable()
    truth: TruthTable = TruthTable()
    time: TimeTable = TimeTable()
    boresight: tuple[BoresightTable, ...] | None = Field(default=None, strict=False)


def read_flight_toml(file: Path) -> FlightConditions:
    """Read a flight.toml. Raises InputError naming the file and the key, what it holds and what it may hold."""
    try:
        tables = _FlightTables.model_validate(tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. Expected a TOML file with a [camera]") from None
    except ValidationError as error:
        raise InputError(f"{file}: {_described(error)}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number too long, tables too deep
        raise InputError(f"{file} is not TOML: {error}. Correct it or move it away.") from None
    try:
        camera = tables.camera.camera()
        if tables.boresight is not None:
            camera = replace(camera, boresights=tuple(BoresightLeg(**dict(leg)) for leg in tables.boresight))
    except ValueError as error:
        raise InputError(f"{file}, [camera]: {error}") from None
    try:
        return FlightConditions(camera, tables.truth.sd_m, tables.time.stated(), tables.truth.stated())
    except InputError as error:
        raise InputError(f"{file}, `[time] utc_offset`: {error}") from None


def find_flight_toml(folder: Path) -> tuple[Path | None, list[str]]:
    """(the file of a flight's folder, notices): `flight.toml` in it, else `<folder>.toml` beside it."""
    inside, beside = folder / FILE_NAME, folder.parent / f"{folder.name}.toml"
    if inside.is_file():
        return inside, [f"{inside} is taken, {beside} left out: one is enough"] if beside.is_file() else []
    return (beside, []) if beside.is_file() else (None, [])


def camera_of(folder: Path, camera: Camera | None = None) -> Camera:
    """The camera of a flight's folder, below what its user says of it."""
    file, _ = find_flight_toml(folder)
    stated = Camera() if file is None else read_flight_toml(file).camera
    return camera.over(stated) if camera else stated


def write_flight_toml(file: Path, *, fov_deg: float, attitude_sd_deg: float, truth_sd_m: float) -> None:
    """Write a camera's field of view, and the errors of the labels' attitude and of the truth."""
    camera = f"[camera]\nfov_deg = {fov_deg!r}\nattitude_sd_deg = {attitude_sd_deg!r}\n"
    files.write_text(file, f"{camera}\n[truth]\nsd_m = {truth_sd_m!r}\n")


def write_boresights(folder: Path, legs: Sequence[BoresightLeg]) -> Path:
    """Write a flight's `[[boresight]]` legs into its flight.toml in place of those there; the rest stays as it is.

    Raises InputError where the file cannot be read or written.
    """
    file, _ = find_flight_toml(folder)
    file = file or folder / FILE_NAME
    try:
        text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        blocks = re.split(r"(?m)^(?=\s*\[)", text)
        rest = "".join(block for block in blocks if not re.match(r"\s*\[\[\s*boresight\s*\]\]", block)).rstrip("\n")
        tables = ["\n".join(_boresight_lines(leg)) for leg in legs]
        files.write_text(file, "\n\n".join([*([rest] if rest else []), *tables]) + "\n")
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}. Add the legs to it by hand") from None
    read_flight_toml(file)
    return file


def _boresight_lines(leg: BoresightLeg) -> list[str]:
    texts = [f"{name} = {json.dumps(getattr(leg, name), ensure_ascii=False)}" for name in ("first", "last")]
    numbers = [f"{name} = {getattr(leg, name):.4f}" for name in ("pitch_deg", "roll_deg", "sd_deg")]
    return ["[[boresight]]", *texts, *numbers]


def _described(error: ValidationError) -> str:
    first = error.errors()[0]
    *tables, key = (str(part) for part in first["loc"] if not isinstance(part, int))
    table = f"`[{'.'.join(tables)}] {key}`" if tables else f"`{key}`"
    if first["type"] == "extra_forbidden":
        models = {"camera": CameraTable, "truth": TruthTable, "time": TimeTable, "boresight": BoresightTable}
        model: Any = models.get(tables[0]) if tables else _FlightTables
        return f"{table} is unknown: expected {', '.join(model.model_fields)}"
    if first["type"] == "model_type":
        return f"{table} is {first['input']!r}: expected a table, [{key}]"
    return f"{table} is {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}"
