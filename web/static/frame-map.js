// The frame's map: the best place of every backbone, and the ten tiles of the chosen one, its best laid in place.

import { addLayer, filled, line, makeMap, outline, pictureLayer, point, replace, sideOf, sign, way } from "./map.js";
import { twin } from "./walk.js";

let map = null;
let rows = [];

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
});

async function draw(holder) {
  const page = await twin();
  if (!holder.isConnected || !page.map) return;
  map = makeMap(holder, page.map);
  if (!map) return;
  pictureLayer(map, "laid");
  addLayer(map, "hits", { title: map.texts.hits, style: (hit) => (hit.get("rank") === 1 ? filled("#0000", "#56b4e9", 2.5) : filled("#0000", "#fff", 1.5)) });
  const lines = addLayer(map, "errors", { title: map.texts.errors, style: line("#fff", 1.25, [3, 3]) });
  const places = addLayer(map, "places", { title: map.texts.estimates, style: (place) => sign(place.get("kind"), { name: place.get("name") }) });
  rows = page.rows.filter((row) => row.estimate);
  const truth = page.frame.truth.location;
  const around = truth ? [[truth.lon, truth.lat]] : [];
  const named = new Map(); // place → the backbones that agree on it
  for (const row of rows) {
    const { lon, lat } = row.estimate.location;
    const [west, south, east, north] = row.hits[0]?.bbox ?? [lon, lat, lon, lat];
    around.push([west, south], [east, north]);
    const key = `${lon} ${lat}`;
    if (row.fix?.match === false) continue; // the map did not confirm it: its tiles are shown, and no place
    if (!named.has(key)) named.set(key, { at: [lon, lat], verdict: row.estimate.verdict, names: [] });
    named.get(key).names.push(row.key);
  }
  for (const { at, verdict, names } of named.values()) {
    if (truth) lines.source.addFeature(way(map, [[truth.lon, truth.lat], at]));
    places.source.addFeature(point(map, at, { kind: verdict ?? "frame-dot", name: names.join(", ") }));
  }
  if (truth) {
    const known = addLayer(map, "truth", { title: map.texts.truth, style: sign("truth") });
    replace(known, [point(map, [truth.lon, truth.lat])]);
  }
  map.fit(around, { margin: 0.25 });
  choose();
}

/** The ten tiles of the backbone in the address, else of the first. */
function choose() {
  if (!map?.place.isConnected) return;
  const wanted = new URL(location.href).searchParams.get("model");
  const row = rows.find((one) => one.key === wanted) ?? rows[0];
  map.layers.laid.clear();
  if (!row?.hits.length) return;
  const [best, ...others] = row.hits;
  const at = (hit) => [hit.location.lon, hit.location.lat];
  const edge = (hit) => outline(map, at(hit), hit.angle_deg, sideOf(map, hit.bbox), { rank: hit.rank });
  if (row.fix?.match !== false) map.layers.laid.tile(at(best), best.image, best.angle_deg, sideOf(map, best.bbox));
  replace(map.layers.hits, [...others.reverse(), best].map(edge));
}

function shown() {
  const holder = document.querySelector(".frame-map .map");
  if (holder) seen.observe(holder);
}

document.addEventListener("shown", shown);
document.addEventListener("noted", choose);
shown();
