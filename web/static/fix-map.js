// The frame on the map: its picture laid on the four corners of its fix, the ellipses around the fix, and where the
// next best place and the truth lie.

import { addLayer, area, ellipse, filled, line, makeMap, pictureLayer, point, replace, sign, way } from "./map.js";
import { twin } from "./walk.js";

let opacity = 65; // per cent, kept from frame to frame
let page = null;
let map = null;
let facts = null; // what the map was made for

const panel = () => document.querySelector(".fix");
const shownRow = () => page?.rows.find((row) => row.key === panel()?.dataset.model);

// --- the layers over the ground -------------------------------------------------------------------

function prepare() {
  const { texts } = map;
  pictureLayer(map, "picture");
  addLayer(map, "frame", { title: texts.frame, style: (edge) => (edge.get("upper") ? line("#56b4e9", 3.5) : line("#fff", 1.5)) });
  addLayer(map, "ellipses", { title: texts.ellipses, style: (one) => (one.get("of") === "ground" ? filled("rgb(255 255 255 / .22)", "#fff") : filled("rgb(86 180 233 / .22)", "#56b4e9")) });
  addLayer(map, "errors", { title: texts.errors, style: line("#fff", 2) });
  addLayer(map, "points", { title: texts.estimates, style: (mark) => sign(mark.get("kind"), { name: mark.get("name") ?? null }) });
}

function draw(fix) {
  const { layers } = map;
  const truth = page.frame.truth.location;
  const at = ({ lon, lat }) => [lon, lat];
  const centre = fix.aircraft ?? fix.ground;
  layers.picture.clear();
  const picture = layers.picture.lay(fix.corners, panel().dataset.picture, "fix-picture");
  picture.style.opacity = opacity / 100;
  replace(layers.frame, [area(map, fix.corners), way(map, fix.corners.slice(0, 2), { upper: true })]);
  const around = (name) => {
    const { major_m, minor_m, azimuth_deg } = fix[name].ellipse_95;
    return ellipse(map, at(fix[name]), major_m, minor_m, azimuth_deg, { of: name, major_m });
  };
  replace(layers.ellipses, [around("ground"), ...(fix.aircraft ? [around("aircraft")] : [])]);
  replace(layers.errors, truth ? [way(map, [at(truth), at(centre)])] : []);
  const marks = [point(map, at(fix.ground), { kind: "ground-point" })];
  if (fix.aircraft) marks.push(point(map, at(fix.aircraft), { kind: "fix" }));
  if (truth) marks.push(point(map, at(truth), { kind: "truth" }));
  if (fix.runner_up) marks.push(point(map, at(fix.runner_up), { kind: "runner-up", name: fix.runner_up.score.toFixed(2) }));
  replace(layers.points, marks);
  map.fit(fix.corners, { margin: 0.12, least: 40 });
}

/** How far the next best place lies from the fix, and where: "812 m ↗". */
function tellRunnerUp(fix) {
  const cell = panel().querySelector(`.fix-facts[data-model="${CSS.escape(panel().dataset.model)}"] [data-value="runner-up"]`);
  if (!cell || !fix.runner_up) return;
  const per = map.facts.metres_per_degree;
  const east = (fix.runner_up.lon - fix.ground.lon) * per.lon;
  const north = (fix.runner_up.lat - fix.ground.lat) * per.lat;
  const turn = Math.atan2(east, north) / (Math.PI / 4);
  cell.textContent = `${Math.round(Math.hypot(east, north))} m ${"↑↗→↘↓↙←↖"[(Math.round(turn) + 8) % 8]}`;
}

// --- whose fix ------------------------------------------------------------------------------------

/** Show the fix of the backbone in the address, where it has one. */
function choose() {
  const section = panel();
  if (!section || !page) return;
  const wanted = new URL(location.href).searchParams.get("model");
  if (page.rows.some((row) => row.key === wanted && row.fix)) section.dataset.model = wanted;
  for (const one of section.querySelectorAll(".fix-facts")) one.hidden = one.dataset.model !== section.dataset.model;
  show();
}

function show() {
  const section = panel();
  const row = shownRow();
  const matched = Boolean(row?.fix?.match && row.fix_map);
  section.querySelector(".fix-ground").hidden = !matched;
  if (!matched) return;
  const holder = section.querySelector(".map");
  const wanted = JSON.stringify(row.fix_map);
  if (map?.place.isConnected && facts !== wanted) {
    map.chart.setTarget(null);
    map.place.remove();
    holder.querySelector(".map-layers ul").replaceChildren();
  }
  if (!map?.place.isConnected) {
    map = makeMap(holder, row.fix_map);
    if (!map) return;
    facts = wanted;
    prepare();
  }
  draw(row.fix);
  tellRunnerUp(row.fix);
}

// --- events ---------------------------------------------------------------------------------------

document.addEventListener("input", (event) => {
  if (!event.target.matches(".fix-opacity")) return;
  opacity = Number(event.target.value);
  for (const picture of panel().querySelectorAll(".fix-picture")) picture.style.opacity = opacity / 100;
});

async function shown() {
  const section = panel();
  page = null;
  if (!section) return;
  section.querySelector(".fix-opacity").value = opacity;
  const answer = await twin();
  if (!section.isConnected) return;
  page = answer;
  choose();
}

document.addEventListener("shown", shown);
document.addEventListener("noted", choose);
shown();
