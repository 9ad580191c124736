"""What a preflight finds: reasons with a level, in sentences with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from coarseloc.i18n import Translator

Level = Literal["ok", "doubtful", "no"]
LEVELS: tuple[Level, ...] = ("ok", "doubtful", "no")

SENTENCES = {
    "crs": "{name} is in {crs}, {gsd} m a pixel; a tile of {footprint} m is {px} px a side.",
    "captures": "{name} are pictures of {px} px, {footprint} m a side by their grid.",
    "coarse": "A footprint of {footprint} m is only {px} pixels of {name} a side: {gsd} m a pixel is coarse.",
    "magnified": "{backbone} looks at {input} px, and a tile holds {px} pixels of {name}: the rest is magnified.",
    "cover": "{name}: {tiles} places, {stride} m apart, show {area} km²; {views} views at {headings} headings.",
    "outside": "{n} of {total} places of {name} hold less than half of ground and are left out.",
    "holes": "{n} of {total} places of the box around {name} are missing: holes, or an outline that is no rectangle.",
    "uneven": "{n} of {tiles} places of {name} lack some of the {headings} headings.",
    "unusable": "{n} pictures of {name} cannot be used ({kinds}): `coarseloc ingest failures` will list them.",
    "blank": "{n} of {sampled} tiles of {name} that were looked at hold no ground (one colour, or cannot be read).",
    "plain": "{n} of {sampled} tiles of {name} that were looked at are almost without contrast (water, snow, fog?): "
    "frames there will not be recognised.",
    "seen": "{sampled} tiles of {name} were looked at: all hold ground with contrast.",
    "unopened": "{reason}",
    "frames": "{flight}: {n} frames of {px} px, positions from {truth} for {known} of them.",
    "no-positions": "No frame of {flight} has a position: whether the map holds the flight cannot be told.",
    "on-map": "All {n} frames of known position lie on ground that the references show.",
    "partly-off": "{n} of {known} frames lie where no reference shows the ground, the nearest centre {away} away.",
    "off-map": "{n} of {known} frames lie where no reference shows the ground, the nearest centre {away} away: is it "
    "the right map?",
    "time": "The flight lasts {span}, one frame every {step}; times from {source}.",
    "no-time": "Nothing tells when frames were taken: tracks go by their order.",
    "yaw": "Headings are known for {n} of {total} frames: of the labels or the gimbal.",
    "no-yaw": "No frame has a heading: frames are looked for at all headings, which costs time and not accuracy.",
    "width": "A frame is {frame} m wide on the ground, a tile {tile} m ({source}).",
    "width-assumed": "How wide a frame is on the ground is not known: a tile's {tile} m is taken. --fov-deg tells it "
    "where labels give the altitude, or a flight.toml.",
    "width-apart": "A frame is {frame} m wide on the ground, a tile {tile} m: they look as from other altitudes. Cut "
    "tiles of the frames' width ({source}).",
    "unread": "{n} of {sampled} frames that were looked at cannot be read (first: {reason})",
    "weights": "The weights of {backbone} are here.",
    "no-weights": "The weights of {backbone} are not here: {reason}. {remedy}",
    "no-backbone": "{reason}",
    "embeddings": "{backbone}: {n} of {views} embeddings are to be made.",
    "minutes": "Ingest takes about {ingest} on {device}, measured on {n} views.",
    "long": "Ingest takes about {ingest} on {device}, measured on {n} views.",
    "search-minutes": "A search of the flight takes about {search} beside its fixes.",
    "disk": "About {needed} of disk are needed, {free} are free.",
    "disk-tight": "About {needed} of disk are needed, and only {free} are free.",
    "disk-full": "About {needed} of disk are needed, and only {free} are free: make room, or set COARSELOC_DATA_DIR.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason of a verdict."""

    topic: str  # "map", "flight", "overlap", "weights", "cost" or "disk"
    level: Level
    key: str  # of `SENTENCES`
    values: dict[str, Any] = field(default_factory=dict)

    def sentence(self, translate: Translator = str) -> str:
        """In words, with its numbers; values that are sentences themselves are translated too."""
        values = {
            name: translate(value) if isinstance(value, str) and " " in value else value
            for name, value in self.values.items()
        }
        return translate(SENTENCES[self.key]).format(**values)


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level; "ok" of none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def duration_text(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
