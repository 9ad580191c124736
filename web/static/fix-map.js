// The frame on the map: its picture laid on the four corners of its fix, the ellipses around the fix, and where the
// next best place and the truth lie.

import { ellipse, element, makeMap, sign, word } from "./map.js";
import { twin } from "./walk.js";

let opacity = 65; // per cent, kept from frame to frame
let page = null;
let map = null;
let facts = null; // what the map was made for

const panel = () => document.querySelector(".fix");

/** The CSS matrix3d that lays a box of `width` x `height` pixels, its origin at the upper left, on four points of the
 *  screen: upper left, upper right, lower right, lower left. The unit square's projective map onto a quadrilateral is
 *  in P. Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3. */
export function matrixOnto([[x0, y0], [x1, y1], [x2, y2], [x3, y3]], width, height) {
  const [dx1, dx2, sx] = [x1 - x2, x3 - x2, x0 - x1 + x2 - x3];
  const [dy1, dy2, sy] = [y1 - y2, y3 - y2, y0 - y1 + y2 - y3];
  const area = dx1 * dy2 - dx2 * dy1;
  const g = (sx * dy2 - dx2 * sy) / area;
  const h = (dx1 * sy - sx * dy1) / area;
  const across = [x1 - x0 + g * x1, y1 - y0 + g * y1, 0, g].map((value) => value / width);
  const down = [x3 - x0 + h * x3, y3 - y0 + h * y3, 0, h].map((value) => value / height);
  return `matrix3d(${[...across, ...down, 0, 0, 1, 0, x0, y0, 0, 1].join(", ")})`;
}

// --- the layers over the ground -------------------------------------------------------------------

/** The frame's picture, and above it a second drawing that moves with the map. */
function layOver(holder) {
  const picture = new Image();
  picture.className = "fix-picture";
  picture.alt = "";
  picture.style.opacity = opacity / 100;
  const over = element("svg", { class: "map-svg map-over", "aria-hidden": "true" });
  map.svg.after(picture, over);
  const place = (metresPerPixel) => {
    over.setAttribute("viewBox", map.svg.getAttribute("viewBox"));
    over.style.setProperty("--px", metresPerPixel);
    const corners = shownFix(holder)?.corners;
    if (corners && picture.naturalWidth)
      picture.style.transform = matrixOnto(corners.map((corner) => map.screen(...map.xy(...corner))), picture.naturalWidth, picture.naturalHeight);
    picture.hidden = !corners || !picture.naturalWidth;
  };
  map.onView(place);
  picture.addEventListener("load", () => map.refresh());
  picture.src = panel().dataset.picture;
  return over;
}

const shownRow = () => page?.rows.find((row) => row.key === panel()?.dataset.model);
const shownFix = (holder) => (holder.isConnected && shownRow()?.fix?.match ? shownRow().fix : null);

function draw(over, fix) {
  const truth = page.frame.truth.location;
  const point = fix.aircraft ?? fix.ground;
  const corners = fix.corners.map((corner) => map.xy(...corner));
  const marks = [
    element("polygon", { class: "frame-edge", points: corners.join(" ") }),
    element("polyline", { class: "frame-edge upper", points: corners.slice(0, 2).join(" ") }),
    ellipse(map, fix.ground, { class: "ellipse of-ground" }),
  ];
  if (fix.aircraft) marks.push(ellipse(map, fix.aircraft, { class: "ellipse" }));
  if (truth) {
    const [x1, y1] = map.xy(truth.lon, truth.lat);
    const [x2, y2] = map.xy(point.lon, point.lat);
    marks.push(element("line", { class: "error-line", x1, y1, x2, y2 }));
  }
  marks.push(sign(map, [fix.ground.lon, fix.ground.lat], "ground-point"));
  if (fix.aircraft) marks.push(sign(map, [fix.aircraft.lon, fix.aircraft.lat], "fix"));
  if (truth) marks.push(sign(map, [truth.lon, truth.lat], "truth"));
  if (fix.runner_up) {
    const { lon, lat, score } = fix.runner_up;
    marks.push(sign(map, [lon, lat], "runner-up"), word(map, [lon, lat], score.toFixed(2)));
  }
  over.replaceChildren(...marks);
  map.fit(corners, 0.12, 40);
}

/** How far the next best place lies from the fix, and where: "812 m ↗". */
function tellRunnerUp(fix) {
  const cell = panel().querySelector(`.fix-facts[data-model="${CSS.escape(panel().dataset.model)}"] [data-value="runner-up"]`);
  if (!cell || !fix.runner_up) return;
  const [x1, y1] = map.xy(fix.ground.lon, fix.ground.lat);
  const [x2, y2] = map.xy(fix.runner_up.lon, fix.runner_up.lat);
  const turn = Math.atan2(x2 - x1, y1 - y2) / (Math.PI / 4);
  cell.textContent = `${Math.round(Math.hypot(x2 - x1, y2 - y1))} m ${"↑↗→↘↓↙←↖"[(Math.round(turn) + 8) % 8]}`;
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
  let holder = section.querySelector(".map");
  const wanted = JSON.stringify(row.fix_map);
  if (map?.svg.isConnected && facts !== wanted) {
    const fresh = holder.cloneNode(true);
    fresh.querySelectorAll(".map-svg, .fix-picture").forEach((one) => one.remove());
    holder.replaceWith(fresh);
    holder = fresh;
  }
  if (!map?.svg.isConnected) {
    map = makeMap(holder, row.fix_map);
    facts = wanted;
    map.over = layOver(holder);
  }
  draw(map.over, row.fix);
  tellRunnerUp(row.fix);
}

// --- events ---------------------------------------------------------------------------------------

document.addEventListener("input", (event) => {
  if (!event.target.matches(".fix-opacity")) return;
  opacity = Number(event.target.value);
  panel().querySelector(".fix-picture").style.opacity = opacity / 100;
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
