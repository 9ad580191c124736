"""What a map of reference sets, of a search or of a fix needs."""

from __future__ import annotations

from collections.abc import Sequence

from flask import url_for

from coarseloc.core import geo
from coarseloc.core.fixes import FrameFix
from coarseloc.core.types import BBox
from coarseloc.store import references, snapshots
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from search.measured_ground import is_measured
from web.language import _
from web.models import GroundMap, MapBounds, location_of
from web.pages.ground import base_layers, ground_layer, set_extent
from web.state import WebState


def run_map(state: WebState, run: StoredRun) -> GroundMap | MapBounds | None:
    """What a map of a run needs: the ground of those of its sets that are still here, else the bounds of what it
    searched."""
    with state.database.read() as session:
        live = {stored.uid: stored for stored in references.reference_sets(session)}
        if searched := [live[uid] for uid in run.set_uids if uid in live]:
            return ground_map(state, searched)
        places = snapshots.search_map(session, run.search_map)
    return map_bounds(state, geo.bounds(places[:, [2, 4]], places[:, [3, 5]])) if len(places) else None


def fix_map(state: WebState, run: StoredRun, fix: FrameFix) -> GroundMap | MapBounds | None:
    """What a map of a fix needs: the ground of the set that it lies on, where that is still here; None without one."""
    if fix.pose is None or fix.conditions is None:
        return None
    with state.database.read() as session:
        live = {stored.name: stored for stored in references.reference_sets(session) if stored.uid in run.set_uids}
    named = live.get(fix.conditions.map_name)
    return ground_map(state, [named]) if named else run_map(state, run)


def ground_map(state: WebState, reference_sets: Sequence[StoredReferenceSet]) -> GroundMap | None:
    """What a map of sets needs: the bounds of all, metres per degree at their centre, and where each one's ground is;
    `reference_set`, `ground` and `tiles` are the first one's. None where no set has tiles."""
    extents = {stored.uid: set_extent(state, stored) for stored in reference_sets}
    placed = [(stored, extent) for stored in reference_sets if (extent := extents[stored.uid]) is not None]
    if not placed:
        return None
    around = geo.bounds(
        [lon for _stored, box in placed for lon in (box.west, box.east)],
        [lat for _stored, box in placed for lat in (box.south, box.north)],
    )
    bounds = map_bounds(state, placed[0][1] if len(placed) == 1 else around)
    first = placed[0][0]
    layers = [ground_layer(state, stored, extent) for stored, extent in reversed(placed)]
    return GroundMap(
        **dict(bounds) | {"layers": [*bounds.layers, *layers]},
        reference_set=first.name,
        footprint_m=first.reference_set.footprint_m,
        ground=url_for("ground.picture", name=first.name),
        tiles=url_for("ground.tiles", name=first.name),
        localizability=[
            url_for("localizability.places", name=stored.name)
            for stored, _extent in placed
            if is_measured(state.settings.localizability, stored)
        ],
    )


def map_bounds(state: WebState, extent: BBox) -> MapBounds:
    origin = geo.box_center(extent)
    per_lon, per_lat = geo.metres_per_degree(origin.lat)
    return MapBounds(
        extent=extent,
        origin=location_of(origin),
        metres_per_degree={"lon": per_lon, "lat": per_lat},
        layers=base_layers(state),
    )


def map_texts() -> dict[str, str]:
    """The words that a map's script shows, by what it calls them."""
    return {
        "missing": _(
            "The map's library is not installed: this copy was not built. Run `pip install -e .` in its folder, or set "
            "COARSELOC_VENDOR_DIR (see CONTRIBUTING.md)."
        ),
        "keys": _("Wheel or + and − zoom, dragging or Shift with the arrows moves, Home shows all."),
        "north": _("North up"),
        "measure": _("Click the line's points; twice ends it, Escape takes it away."),
        "truth": _("True position"),
        "track": _("Track"),
        "smoothed": _("Smoothed track"),
        "estimates": _("Estimates"),
        "best": _("Best tiles"),
        "fixes": _("Fixes"),
        "ellipses": _("Ellipses of 95 %"),
        "errors": _("Lines to the truth"),
        "hits": _("Ranked tiles"),
        "frame": _("The frame's edge"),
        "footprints": _("Footprints of the tiles"),
        "coverage": _("Ground covered by references"),
        "localizability": _("Localizability: expected error"),
        "place": _("at this place: {error}, {share} of its headings right, margin {margin}"),
        "unanswered": _("nothing could answer"),
        "measured": _("{share} of the ground right; measured {date} without {excluded}"),
        "view": _("the view itself"),
        "own-place": _("the place itself"),
        "neighbours": _("the view and its neighbours"),
        "outdated": _("The references have changed since: run coarseloc localizability again."),
        "way": _("The way flown"),
    }
