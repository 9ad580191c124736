// The flight page: map, film and panel show the same frame. Hovering one of them moves the others.

import { busy } from "./shell.js";
import { element, ellipse, laid, makeMap, outline, sign } from "./map.js";

const holder = document.querySelector(".map");
const film = document.querySelector(".film");
const panel = document.querySelector(".peek");
const frames = [...(film?.querySelectorAll("a[data-frame]") ?? [])];
let map = null;
let byIndex = new Map();
let current = null;

// --- colours --------------------------------------------------------------------------------------

// Cividis, dark to light: one lightness ramp that every colour vision can follow.
const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

function ramp(share) {
  const at = Math.max(0, Math.min(1, share)) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  const [r, g, b] = RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (at - low)));
  return `rgb(${r} ${g} ${b})`;
}

/** What the track is coloured by: the probability of fixes where frames were verified; else errors where truth is known,
 *  else margins, whose scale ends at the 90th percentile. */
function colouring(found) {
  const wanted = holder.dataset.colour;
  if (wanted === "probability")
    return { low: 0.5, high: 1, of: (frame) => (frame.fix?.match ? ramp((frame.fix.probability - 0.5) / 0.5) : null) };
  const value = (frame) => (wanted === "error" ? frame.best?.error_m : frame.best?.margin) ?? null;
  const values = found.map(value).filter((one) => one !== null).sort((a, b) => a - b);
  const low = values[0] ?? 0;
  const high = values[Math.floor(values.length * 0.9)] ?? 1;
  const share = (one) => (high > low ? (one - low) / (high - low) : 0.5);
  return { low, high, of: (frame) => (value(frame) === null ? null : ramp(wanted === "error" ? 1 - share(value(frame)) : share(value(frame)))) };
}

// --- the map --------------------------------------------------------------------------------------

async function draw() {
  const answer = await fetch(document.querySelector("link[rel=alternate]").href);
  if (!answer.ok || !holder) return;
  const page = await answer.json();
  if (!page.map) return;
  map = makeMap(holder, page.map);
  byIndex = new Map(page.frames.map((frame) => [frame.index, frame]));
  const placed = page.frames.filter(at);
  const colours = colouring(page.frames);
  const points = [];
  for (const frame of placed) {
    const here = at(frame);
    points.push(map.xy(here.lon, here.lat));
    if (frame.best && frame.fix?.match !== false) points.push(map.xy(frame.best.location.lon, frame.best.location.lat));
  }
  const way = placed.map((frame) => map.xy(at(frame).lon, at(frame).lat).map((one) => one.toFixed(1)).join(" "));
  map.layers.lines.append(element("polyline", { class: "way", points: way.join(" ") }));
  for (const frame of page.frames) {
    if (frame.best && frame.truth && frame.fix?.match !== false) drawBest(frame, page.method);
    if (frame.fix?.match) drawFix(frame, colours);
    else if (at(frame)) drawPlace(frame, colours);
  }
  legend(colours);
  const apart = spacing(placed.map((frame) => map.xy(at(frame).lon, at(frame).lat)));
  map.onView((metresPerPixel) => map.svg.style.setProperty("--sign", Math.max(0.4, Math.min(1, apart / metresPerPixel / 9))));
  map.fit(points);
  holder.classList.add("ready");
  const wanted = Number(new URL(location.href).searchParams.get("frame"));
  choose(byIndex.has(wanted) ? wanted : page.frames[0]?.index, { scroll: false });
}

/** Where a frame is drawn: its truth, else its fix, else its best tile; nowhere where the map did not confirm that. */
function at(frame) {
  if (frame.truth) return frame.truth;
  if (frame.fix?.match) return pointOf(frame.fix);
  return frame.fix?.match === false ? null : frame.best?.location;
}

const pointOf = (fix) => fix.aircraft ?? fix.ground;

function lineBetween(one, other, attributes) {
  const [x1, y1] = map.xy(one.lon, one.lat);
  const [x2, y2] = map.xy(other.lon, other.lat);
  return element("line", { x1, y1, x2, y2, ...attributes });
}

/** The best tile's centre; of a frame that was verified it is shown when asked for. */
function drawBest(frame, method) {
  if (frame.fix && method === "fix") return; // its best is the fix
  const { location, verdict } = frame.best;
  const marks = [
    lineBetween(frame.truth, location, { class: "off", "data-frame": frame.index }),
    sign(map, [location.lon, location.lat], verdict, { "data-frame": frame.index }),
  ];
  for (const mark of marks) mark.classList.toggle("coarse", Boolean(frame.fix));
  map.layers.lines.append(marks[0]);
  map.layers.points.append(marks[1]);
}

/** A fix: its ellipse in true size, its point in a size that is always seen. */
function drawFix(frame, colours) {
  const point = pointOf(frame.fix);
  map.layers.lines.append(ellipse(map, point, { class: "ellipse", "data-frame": frame.index }));
  if (frame.truth) map.layers.lines.append(lineBetween(frame.truth, point, { class: "error-line", "data-frame": frame.index }));
  const mark = sign(map, [point.lon, point.lat], "fix", { "data-frame": frame.index });
  mark.style.fill = colours.of(frame);
  map.layers.points.append(mark);
}

function drawPlace(frame, colours) {
  const here = at(frame);
  const mark = sign(map, [here.lon, here.lat], frame.fix?.match === false ? "no-match" : "frame-dot", { "data-frame": frame.index });
  const colour = colours.of(frame);
  if (colour) mark.style.fill = colour;
  map.layers.points.append(mark);
}

/** The usual distance between neighbouring frames: signs shrink where they would hide each other. */
function spacing(points) {
  const steps = points.slice(1).map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1]));
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? Infinity;
}

function legend(colours) {
  const scale = holder.querySelector(".scale");
  if (!scale) return;
  const text = {
    error: (value) => `${Math.round(value)} m`,
    margin: (value) => value.toFixed(4),
    probability: (value) => `${100 * value} %`,
  }[holder.dataset.colour];
  scale.querySelector(".scale-low").textContent = text(colours.low);
  scale.querySelector(".scale-high").textContent = text(colours.high);
  scale.hidden = false;
}

// --- the current frame ----------------------------------------------------------------------------

function choose(index, { scroll = true } = {}) {
  if (index === undefined || index === current) return;
  current = index;
  document.querySelectorAll(".at").forEach((one) => one.classList.remove("at"));
  document.querySelectorAll(`[data-frame="${index}"]`).forEach((one) => one.classList.add("at"));
  const link = frames.find((one) => one.dataset.frame === String(index));
  if (scroll) link?.scrollIntoView({ block: "nearest", inline: "center" });
  const frame = byIndex.get(index);
  if (frame) show(frame, link);
}

function show(frame, link) {
  const best = frame.best;
  map.layers.laid.replaceChildren();
  if (best?.image && frame.fix?.match !== false) {
    const side = map.facts.footprint_m ?? 0;
    const at = [best.location.lon, best.location.lat];
    map.layers.laid.append(
      laid(map, at, best.image, best.angle_deg, side),
      outline(map, at, best.angle_deg, side, { class: `laid-edge ${best.verdict ?? ""}` }),
    );
  }
  if (frame.fix?.match) {
    const corners = frame.fix.corners.map((corner) => map.xy(...corner));
    map.layers.laid.append(
      element("polygon", { class: "frame-edge", points: corners.join(" ") }),
      element("polyline", { class: "frame-edge upper", points: corners.slice(0, 2).join(" ") }),
    );
  }
  if (!panel) return;
  panel.querySelector("h2 a").textContent = panel.dataset.title.replace("{n}", frame.index);
  for (const one of panel.querySelectorAll("a")) one.href = frame.url + location.search;
  panel.querySelector(".peek-query").src = frame.image;
  panel.querySelector(".peek-query").alt = link?.querySelector("img").alt ?? "";
  const tile = panel.querySelector(".peek-tile");
  tile.hidden = !best?.image;
  if (best?.image) tile.src = best.image;
  const values = { ...texts(best), fix: link?.querySelector(".fix-badge")?.textContent ?? "–" };
  if (frame.fix?.match) values.fix = fixText(frame);
  for (const cell of panel.querySelectorAll("[data-value]")) cell.textContent = values[cell.dataset.value];
  panel.querySelector(".peek-unconfirmed").hidden = frame.fix?.match !== false;
  panel.hidden = false;
}

function texts(best) {
  if (!best) return { error: "–", margin: "–", score: "–", heading: "–" };
  return {
    error: best.error_m === null ? "–" : metres(best.error_m),
    margin: (best.margin_at_least ? "≥ " : "") + (best.margin?.toFixed(4) ?? "–"),
    score: best.score.toFixed(4),
    heading: best.angle_deg === null ? "–" : `${String(Math.round(best.angle_deg)).padStart(3, "0")}°`,
  };
}

const metres = (value) => `${value.toFixed(value < 0.995 ? 2 : value < 9.95 ? 1 : 0)} m`;

/** "0.05 m ± 13.7 m": the distance from truth, where it is known, and the ellipse. */
function fixText({ fix, fix_errors: errors }) {
  const error = fix.aircraft ? errors?.fix_aircraft_m : errors?.fix_ground_m;
  return `${error === undefined || error === null ? "" : `${metres(error)} `}± ${metres(pointOf(fix).ellipse_95.major_m)}`;
}

// --- events ---------------------------------------------------------------------------------------

function framed(event) {
  const one = event.target.closest?.("[data-frame]");
  return one ? Number(one.dataset.frame) : undefined;
}

film?.addEventListener("pointerover", (event) => choose(framed(event), { scroll: false }));
film?.addEventListener("focusin", (event) => choose(framed(event)));
holder?.addEventListener("pointerover", (event) => choose(framed(event)));
holder?.addEventListener("click", (event) => {
  const index = framed(event);
  if (index !== undefined) location.assign(byIndex.get(index).url + location.search);
});
document.querySelector("[data-shows=coarse]")?.addEventListener("click", (event) => {
  event.target.setAttribute("aria-pressed", holder.classList.toggle("shows-coarse"));
});
document.addEventListener("keydown", (event) => {
  if (busy(event) || document.querySelector("dialog[open]") || !frames.length) return;
  const at = frames.findIndex((one) => one.dataset.frame === String(current));
  if (event.key === "ArrowRight") frames[Math.min(at + 1, frames.length - 1)].focus();
  else if (event.key === "ArrowLeft") frames[Math.max(at - 1, 0)].focus();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const models = [...document.querySelectorAll(".models a")];
    const now = models.findIndex((one) => one.hasAttribute("aria-current"));
    models[(now + (event.key === "ArrowDown" ? 1 : -1) + models.length) % models.length]?.click();
  } else return;
  event.preventDefault();
});

if (holder) draw();
