// The frame's map: the best place of every backbone, and the ten tiles of the chosen one, its best laid in place.

import { element, laid, makeMap, outline, sideOf, sign, word } from "./map.js";
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
  rows = page.rows.filter((row) => row.estimate);
  const truth = page.frame.truth.location;
  const points = truth ? [map.xy(truth.lon, truth.lat)] : [];
  const named = new Map(); // place → the backbones that agree on it
  for (const row of rows) {
    const { lon, lat } = row.estimate.location;
    const side = sideOf(map, row.hits[0].bbox);
    points.push(...[-1, 1].map((way) => map.xy(lon, lat).map((one) => one + (way * side) / 2)));
    const key = `${lon} ${lat}`;
    if (row.fix?.match === false) continue; // the map did not confirm it: its tiles are shown, and no place
    if (!named.has(key)) named.set(key, { at: [lon, lat], verdict: row.estimate.verdict, names: [] });
    named.get(key).names.push(row.key);
  }
  for (const { at, verdict, names } of named.values()) {
    if (truth) {
      const [x1, y1] = map.xy(truth.lon, truth.lat);
      const [x2, y2] = map.xy(...at);
      map.layers.lines.append(element("line", { class: "off", x1, y1, x2, y2 }));
    }
    map.layers.points.append(sign(map, at, verdict ?? "frame-dot"), word(map, at, names.join(", ")));
  }
  if (truth) map.layers.points.append(sign(map, [truth.lon, truth.lat], "truth"));
  map.fit(points, 0.25);
  choose();
}

/** The ten tiles of the backbone in the address, else of the first. */
function choose() {
  if (!map?.svg.isConnected) return;
  const wanted = new URL(location.href).searchParams.get("model");
  const row = rows.find((one) => one.key === wanted) ?? rows[0];
  map.layers.laid.replaceChildren();
  if (!row) return;
  const [best, ...others] = row.hits;
  const at = (hit) => [hit.location.lon, hit.location.lat];
  map.layers.laid.append(
    ...(row.fix?.match === false ? [] : [laid(map, at(best), best.image, best.angle_deg, sideOf(map, best.bbox))]),
    ...others.reverse().map((hit) => outline(map, at(hit), hit.angle_deg, sideOf(map, hit.bbox), { class: "hit-edge" })),
    outline(map, at(best), best.angle_deg, sideOf(map, best.bbox), { class: "hit-edge first" }),
  );
}

function shown() {
  const holder = document.querySelector(".frame-map .map");
  if (holder) seen.observe(holder);
}

document.addEventListener("shown", shown);
document.addEventListener("noted", choose);
shown();
