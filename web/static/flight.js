// The flight page: map, film and panel show the same frame. Hovering one of them moves the others.

import { busy } from "./shell.js";
import { element, laid, makeMap, outline, sign } from "./map.js";

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

/** What the track is coloured by: errors where truth is known, else margins. Ends at the 90th percentile. */
function colouring(found) {
  const wanted = holder.dataset.colour;
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
  const at = (frame) => frame.truth ?? frame.best?.location;
  const placed = page.frames.filter(at);
  const colours = colouring(page.frames);
  const points = [];
  for (const frame of placed) {
    const here = at(frame);
    points.push(map.xy(here.lon, here.lat));
    if (frame.best) points.push(map.xy(frame.best.location.lon, frame.best.location.lat));
  }
  const way = placed.map((frame) => map.xy(at(frame).lon, at(frame).lat).map((one) => one.toFixed(1)).join(" "));
  map.layers.lines.append(element("polyline", { class: "way", points: way.join(" ") }));
  for (const frame of placed) {
    if (frame.truth && frame.best) {
      const [x1, y1] = map.xy(frame.truth.lon, frame.truth.lat);
      const [x2, y2] = map.xy(frame.best.location.lon, frame.best.location.lat);
      map.layers.lines.append(element("line", { class: "off", x1, y1, x2, y2, "data-frame": frame.index }));
      map.layers.points.append(sign(map, [frame.best.location.lon, frame.best.location.lat], frame.best.verdict, { "data-frame": frame.index }));
    }
    const here = at(frame);
    const dot = sign(map, [here.lon, here.lat], "frame-dot", { "data-frame": frame.index });
    const colour = colours.of(frame);
    if (colour) dot.style.fill = colour;
    map.layers.points.append(dot);
  }
  legend(colours);
  const apart = spacing(placed.map((frame) => map.xy(at(frame).lon, at(frame).lat)));
  map.onView((metresPerPixel) => map.svg.style.setProperty("--sign", Math.max(0.4, Math.min(1, apart / metresPerPixel / 9))));
  map.fit(points);
  holder.classList.add("ready");
  const wanted = Number(new URL(location.href).searchParams.get("frame"));
  choose(byIndex.has(wanted) ? wanted : page.frames[0]?.index, { scroll: false });
}

/** The usual distance between neighbouring frames: signs shrink where they would hide each other. */
function spacing(points) {
  const steps = points.slice(1).map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1]));
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? Infinity;
}

function legend(colours) {
  const scale = holder.querySelector(".scale");
  if (!scale) return;
  const text = (value) => (holder.dataset.colour === "error" ? `${Math.round(value)} m` : value.toFixed(4));
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
  if (best) {
    const side = map.facts.footprint_m ?? 0;
    const at = [best.location.lon, best.location.lat];
    map.layers.laid.append(
      laid(map, at, best.image, best.angle_deg, side),
      outline(map, at, best.angle_deg, side, { class: `laid-edge ${best.verdict ?? ""}` }),
    );
  }
  if (!panel) return;
  panel.querySelector("h2 a").textContent = panel.dataset.title.replace("{n}", frame.index);
  for (const one of panel.querySelectorAll("a")) one.href = frame.url + location.search;
  panel.querySelector(".peek-query").src = frame.image;
  panel.querySelector(".peek-query").alt = link?.querySelector("img").alt ?? "";
  const tile = panel.querySelector(".peek-tile");
  tile.hidden = !best;
  if (best?.image) tile.src = best.image;
  for (const cell of panel.querySelectorAll("[data-value]")) cell.textContent = texts(best)[cell.dataset.value];
  panel.hidden = false;
}

function texts(best) {
  if (!best) return { error: "–", margin: "–", score: "–", heading: "–" };
  return {
    error: best.error_m === null ? "–" : `${Math.round(best.error_m)} m`,
    margin: (best.margin_at_least ? "≥ " : "") + (best.margin?.toFixed(4) ?? "–"),
    score: best.score.toFixed(4),
    heading: best.angle_deg === null ? "–" : `${String(Math.round(best.angle_deg)).padStart(3, "0")}°`,
  };
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
