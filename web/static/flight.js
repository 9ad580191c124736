// The flight page: map, film, time axis and panel show the same frame and the same range; the address holds which.

import { addLayer, area, badness, ellipse, filled, line, makeMap, nearest, outline, pictureLayer, point, replace, showLayer, sign, way, ways } from "./map.js";
import { Film } from "./film.js";
import { Marks } from "./marks.js";
import { busy } from "./shell.js";
import { timeAxis } from "./time-axis.js";
import { note } from "./walk.js";

const LARGE = 1500; // frames, from which points are drawn as one picture while the map moves
const ELLIPSES = 1500; // drawn at once, those in view
const WORST = 20;
const BRIEF_AFTER_MS = 90; // a frame passed by is not asked for
const PLACED = ["fix", "track", "track-smoothed"]; // methods whose signs are their own

const main = document.querySelector(".flight-data");
const holder = document.querySelector(".map");
const panel = document.querySelector(".peek");
const facts = main ? JSON.parse(main.dataset.facts) : null;
const address = () => new URL(location.href).searchParams;
let flight = null; // columns of all frames
let primary = null; // the answer that colours the map and fills film and panel
let map = null;
let film = null;
let axis = null;
let colours = null;
let current = 0; // place in the flight
let range = null; // [first, last] second or frame of the axis, null for all
let latestWorst = null; // that W has shown
let marks = null; // the panel's form of tags and note
let ranked = []; // places in the flight, the worst first

// --- columns --------------------------------------------------------------------------------------

/** Values from differences: each less the known one before it. */
function summed(differences, scale = 1) {
  let total = 0;
  return differences.map((step) => (step === null ? null : (total += step) / scale));
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer.json();
}

async function flightColumns() {
  const columns = await fetched(facts.columns);
  const timed = columns.seconds.length > 1 && columns.seconds.every((second) => second !== null);
  const index = summed(columns.index);
  return {
    ...columns,
    index,
    timed,
    x: timed ? columns.seconds : index,
    truth: pairs(summed(columns.lon, 1e6), summed(columns.lat, 1e6)),
    place: new Map(index.map((number, at) => [number, at])),
    length: index.length,
  };
}

const pairs = (lon, lat) => lon.map((value, at) => (value === null ? null : [value, lat[at]]));
const answers = new Map(); // "model method" → promise of its columns

/** One answer for all frames, asked for once; `agreement`: with how many backbones agree, which costs them all. */
function answerOf(model, method, agreement = false) {
  const key = `${model} ${method} ${agreement}`;
  if (!answers.has(key)) {
    const asked = new URLSearchParams(facts.query);
    if (model) asked.set("model", model);
    asked.set("method", method);
    if (agreement) asked.set("agreement", "yes");
    answers.set(key, fetched(`${facts.estimates}?${asked}`).then(decoded));
  }
  return answers.get(key);
}

function decoded(columns) {
  const state = columns.state.map((code) => (code === null ? null : columns.states[code]));
  return {
    ...columns,
    at: pairs(summed(columns.lon, 1e6), summed(columns.lat, 1e6)),
    probability: columns.probability.map((share) => (share === null ? null : share / 1000)),
    margin: columns.margin.map((score) => (score === null ? null : Math.abs(score) / 1e4)),
    at_least: columns.margin.map((score) => score !== null && (score < 0 || Object.is(score, -0))),
    state: columns.method === "fix" ? columns.match.map((match) => (match === null ? "unverified" : match ? "match" : "no-match")) : state,
  };
}

// --- colours --------------------------------------------------------------------------------------

/** What frames are coloured by: the probability of fixes where frames were verified; else errors where truth is known,
 *  else margins. The scale of those ends at the 90th percentile, and says so. */
function colouring() {
  const kind = holder?.dataset.colour;
  if (kind === "probability") {
    const share = (at) => (primary.at[at] && primary.probability[at] !== null ? (1 - primary.probability[at]) / 0.5 : null);
    return { low: "100 %", high: "≤ 50 %", share };
  }
  const values = kind === "error" ? primary.error_m : primary.margin;
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  const [low, high] = [sorted[0] ?? 0, sorted[Math.floor(sorted.length * 0.9)] ?? 1];
  const cut = sorted.at(-1) > high ? "≥ " : "";
  const share = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  if (kind === "error") return { low: metres(low), high: cut + metres(high), share: (at) => (values[at] === null ? null : share(values[at])) };
  return { low: cut + high.toFixed(4), high: low.toFixed(4), share: (at) => (values[at] === null ? null : 1 - share(values[at])) };
}

function legend() {
  const scale = document.querySelector(".map .scale");
  if (!scale || primary.at.every((place) => place === null)) return;
  scale.querySelector(".scale-low").textContent = colours.low;
  scale.querySelector(".scale-high").textContent = colours.high;
  scale.hidden = false;
}

/** Places in the flight, the worst first: no match, then by what the map is coloured by. */
function worstFirst() {
  const bad = (at) => (primary.match[at] === 0 ? 2 : (colours.share(at) ?? -1));
  const error = (at) => primary.error_m[at] ?? 0;
  return flight.index.map((_, at) => at).filter((at) => bad(at) >= 0).sort((a, b) => bad(b) - bad(a) || error(b) - error(a));
}

// --- the map --------------------------------------------------------------------------------------

/** Where a frame is drawn: its truth, else its answer; nowhere where the map did not confirm that. */
const placeOf = (at) => flight.truth[at] ?? primary.at[at];

function prepare() {
  const { texts } = map;
  const large = flight.length > LARGE;
  const pressed = () => (film ? Math.max(0.4, Math.min(1, spacing / map.metresPerPixel() / 9)) : 1);
  const spacing = usualSpacing();
  const scaled = () => Math.round(pressed() * 5) / 5 || 0.4;
  const inRange = (mark) => !range || within(mark.get("at"));
  const styled = (mark) => (inRange(mark) ? sign(mark.get("kind"), { fill: mark.get("fill"), scale: scaled() * (mark.get("bad") > 0.75 ? 1.3 : 1) }) : null);
  addLayer(map, "way", { title: texts.way, large, style: line("rgb(255 255 255 / .75)", 1.5) });
  pictureLayer(map, "laid");
  addLayer(map, "frame", { style: (edge) => (edge.get("upper") ? line("#56b4e9", 3.5) : line(edge.get("color") ?? "#fff", 2)) });
  const ellipses = facts.methods.some((method) => PLACED.includes(method));
  if (ellipses) addLayer(map, "ellipses", { title: texts.ellipses, large, shows: PLACED.includes(primary.method), style: filled("rgb(86 180 233 / .22)", "#56b4e9") });
  addLayer(map, "errors", { title: texts.errors, large, style: [line("rgb(20 24 27 / .6)", 2.5), line("#fff", 1.2)] });
  addLayer(map, "frames", { title: texts.truth, large, style: styled });
  for (const method of facts.methods) {
    const title = { "best-place": texts.best, fix: texts.fixes, track: texts.track, "track-smoothed": texts.smoothed }[method] ?? method;
    const shows = method === primary.method;
    addLayer(map, method, { title, large, shows, style: styled, onShow: shows ? null : async () => draw(await answerOf(facts.model, method)) });
  }
  addLayer(map, "at", { style: sign("at") });
  map.chart.on("moveend", drawEllipses);
  holder.addEventListener("layer", ({ detail }) => {
    if (detail.name === "ellipses") drawEllipses();
    const button = document.querySelector("[data-shows=coarse]");
    if (button && detail.name === "best-place") button.setAttribute("aria-pressed", detail.on);
  });
}

const within = (at) => flight.x[at] >= range[0] && flight.x[at] <= range[1];

/** The usual distance between neighbouring frames, in metres: signs shrink where they would hide each other. */
function usualSpacing() {
  const per = map.facts.metres_per_degree;
  const steps = [];
  for (let at = 1; at < flight.length; at++) {
    const [from, to] = [placeOf(at - 1), placeOf(at)];
    if (from && to) steps.push(Math.hypot((to[0] - from[0]) * per.lon, (to[1] - from[1]) * per.lat));
  }
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] || Infinity;
}

/** An answer's points; of the one that colours the map its lines to the truth too. */
function draw(answer) {
  const marks = [];
  const lines = [];
  answer.at.forEach((place, at) => {
    if (!place || (answer.method === "best-place" && denied(at))) return;
    const kind = answer.method === "best-place" ? (["on", "near", "far"][answer.verdict[at]] ?? "frame-dot") : answer.method.startsWith("track") ? "track" : "fix";
    const share = answer === primary ? colours.share(at) : null;
    const fill = answer === primary && kind === "fix" && share !== null ? badness(share) : null;
    marks.push(point(map, place, { at, kind, fill, bad: share ?? 0 }));
    if (flight.truth[at]) lines.push([flight.truth[at], place]);
  });
  if (answer.method !== "best-place" || flight.truth.some(Boolean)) replace(map.layers[answer.method], marks);
  if (answer === primary) replace(map.layers.errors, lines.length ? [ways(map, lines)] : []);
}

/** The map did not confirm the frame's best tile. */
const denied = (at) => primary.method === "fix" && primary.match[at] === 0;

/** Frames where they are known to be, coloured; of a verified flight those without a fix, by what the map said. */
function drawFrames() {
  const marks = [];
  const judged = primary.method === "fix";
  flight.index.forEach((_, at) => {
    const place = placeOf(at);
    if (!place || (judged && primary.match[at] === 1)) return;
    const share = colours.share(at);
    const kind = judged && primary.match[at] === 0 ? "no-match" : "frame-dot";
    marks.push(point(map, place, { at, kind, fill: share === null ? null : badness(share), bad: share ?? 0 }));
  });
  marks.sort((a, b) => a.get("bad") - b.get("bad")); // the bad ones above
  replace(map.layers.frames, marks);
  const known = flight.index.map((_, at) => placeOf(at)).filter(Boolean);
  replace(map.layers.way, known.length > 1 ? [way(map, known)] : []);
  return known;
}

/** The ellipses in view, once they are large enough to be seen. */
function drawEllipses() {
  const layer = map.layers.ellipses;
  if (!layer?.layer.getVisible() || !primary.ellipse_95) return;
  const [left, bottom, right, top] = map.view.calculateExtent();
  const least = flight.length > LARGE ? 20 * map.metresPerPixel() : 0; // decimetres of two pixels
  const shown = [];
  for (let at = 0; at < flight.length && shown.length < ELLIPSES; at++) {
    const [major, minor, azimuth] = primary.ellipse_95[at];
    const place = primary.at[at];
    if (!place || major === undefined || major < least || (range && !within(at))) continue;
    const [x, y] = map.at(place);
    if (flight.length <= LARGE || (x >= left && x <= right && y >= bottom && y <= top)) shown.push(ellipse(map, place, major / 10, minor / 10, azimuth, { at }));
  }
  replace(layer, shown);
}

// --- one frame ------------------------------------------------------------------------------------

let waiting = 0;
const briefs = new Map();

/** Show a frame everywhere. `by`: who asked, and need not be moved; `keep`: whether the address notes it. */
function choose(at, { by = null, keep = true } = {}) {
  if (at === undefined || at < 0 || at >= flight.length) return;
  if (["map", "film"].includes(by) && marks?.busy(current)) return film.mark(current); // the pointer passes while one writes
  current = at;
  if (by !== "film") film.show(at, { focus: by === "keys", scroll: by !== "start" });
  axis?.mark(at);
  const place = placeOf(at);
  if (map) {
    replace(map.layers.at, place ? [point(map, place)] : []);
    const [x, y] = place ? map.screen(place) ?? [] : [];
    const [width, height] = map.chart.getSize() ?? [0, 0];
    if (place && by && by !== "map" && by !== "start" && (x < 0 || y < 0 || x > width || y > height)) map.view.setCenter(map.at(place));
  }
  const jump = document.getElementById("jump");
  if (jump && document.activeElement !== jump) jump.value = flight.index[at];
  if (keep) noteSoon({ frame: flight.index[at] });
  clearTimeout(waiting);
  waiting = setTimeout(() => brief(at).then((frame) => at === current && show(at, frame)), by === "start" ? 0 : BRIEF_AFTER_MS);
}

let noting = 0;
let noted = {};

/** Browsers allow a hundred notes in half a minute: a film that plays notes its last frame. */
function noteSoon(changes) {
  noted = { ...noted, ...changes };
  clearTimeout(noting);
  noting = setTimeout(() => {
    note(noted);
    noted = {};
    carry();
  }, 150);
}

/** Links to other views of the flight keep the frame and the range. */
function carry() {
  const here = address();
  for (const link of document.querySelectorAll(".models a, .title .choice a, .figures th a")) {
    const there = new URL(link.href);
    for (const name of ["frame", "t", "metric", "lines"]) if (here.has(name)) there.searchParams.set(name, here.get(name));
    link.href = there;
  }
}

function brief(at) {
  if (!briefs.has(at)) {
    const asked = new URLSearchParams(facts.query);
    if (facts.model) asked.set("model", facts.model);
    briefs.set(at, fetched(`${frameUrl(at)}/brief.json?${asked}`));
    briefs.get(at).catch(() => briefs.delete(at));
  }
  return briefs.get(at);
}

const frameUrl = (at) => flight.frame_url.replace("{index}", flight.index[at]);

/** Lay the frame's best tile, or its edge by its fix, on the map, and fill the panel. */
function show(at, frame) {
  const { best, fix } = frame;
  if (map) {
    map.layers.laid.clear();
    const edges = [];
    if (best?.image && fix?.match !== false) {
      const place = [best.location.lon, best.location.lat];
      const side = map.facts.footprint_m ?? 100;
      map.layers.laid.tile(place, best.image, best.angle_deg, side);
      edges.push(outline(map, place, best.angle_deg, side, { color: { on: "#56b4e9", near: "#e69f00", far: "#ffd23f" }[best.verdict] }));
    }
    if (fix?.match) edges.push(area(map, fix.corners), way(map, fix.corners.slice(0, 2), { upper: true }));
    replace(map.layers.frame, edges);
  }
  if (!panel) return;
  panel.querySelector("h2 a").textContent = panel.dataset.title.replace("{n}", frame.index);
  for (const link of panel.querySelectorAll("h2 a, .peek-pictures a")) link.href = frame.url + facts.query;
  const query = panel.querySelector(".peek-query");
  query.src = frame.image;
  query.alt = panel.dataset.title.replace("{n}", frame.index);
  const tile = panel.querySelector(".peek-tile");
  tile.hidden = !best?.image;
  if (best?.image) tile.src = best.image;
  panel.querySelector(".peek-about").hidden = !best?.image;
  const values = { ...texts(best), fix: fixText(frame) };
  for (const cell of panel.querySelectorAll("[data-value]")) cell.textContent = values[cell.dataset.value];
  panel.querySelector(".peek-unconfirmed").hidden = fix?.match !== false;
  marks.show(at, `${frame.url}/marks`, frame);
  panel.hidden = false;
}

function texts(best) {
  if (!best) return { error: "–", margin: "–", score: "–", heading: "–" };
  return {
    error: best.error_m === null ? "–" : metres(best.error_m),
    margin: (best.margin_at_least ? "≥ " : "") + (best.margin?.toFixed(4) ?? "–"),
    score: best.score.toFixed(4),
    heading: best.angle_deg === null ? "–" : `${String(Math.round(best.angle_deg) % 360).padStart(3, "0")}°`,
  };
}

/** Metres as the server writes them: decimals below ten, kilometres from ten thousand. */
const metres = (value) => (value < 10_000 ? `${value.toFixed(value < 0.995 ? 2 : value < 9.95 ? 1 : 0)} m` : `${(value / 1000).toFixed(1)} km`);

/** "0.05 m ± 13.7 m": the distance from truth, where it is known, and the ellipse. */
function fixText({ fix, fix_errors: errors }) {
  if (!fix?.match) return fix?.match === false ? facts.texts["no-match"] : facts.texts.unverified;
  const error = fix.aircraft ? errors?.fix_aircraft_m : errors?.fix_ground_m;
  return `${error === undefined || error === null ? "" : `${metres(error)} `}± ${metres((fix.aircraft ?? fix.ground).ellipse_95.major_m)}`;
}

/** What stands below a picture of the film. */
function caption(at) {
  if (primary.method === "fix") {
    if (primary.match[at] === 1) return { sign: "fix", text: primary.error_m[at] === null ? `${(100 * primary.probability[at]).toFixed(1)} %` : metres(primary.error_m[at]) };
    return { sign: primary.match[at] === 0 ? "no-match" : "unverified", text: facts.texts[primary.match[at] === 0 ? "no-match-short" : "unverified"] };
  }
  if (primary.error_m[at] !== null) return { verdict: ["on", "near", "far"][primary.verdict[at]], text: metres(primary.error_m[at]) };
  return { text: primary.margin[at] === null ? "" : primary.margin[at].toFixed(4) };
}

// --- what a reader does ---------------------------------------------------------------------------

function listen() {
  map?.chart.on("pointermove", (event) => !event.dragging && choose(pointed(event), { by: "map" }));
  map?.chart.on("singleclick", (event) => {
    const at = pointed(event);
    if (at !== undefined) location.assign(frameUrl(at) + facts.query);
  });
  document.querySelector("[data-shows=coarse]")?.addEventListener("click", ({ target }) => showLayer(map, "best-place", target.getAttribute("aria-pressed") !== "true"));
  document.querySelector("[data-worst]")?.addEventListener("click", worst);
  document.querySelector(".flight-jump")?.addEventListener("submit", (event) => {
    event.preventDefault();
    choose(flight.place.get(Number(event.target.elements.frame.value)), { by: "keys" });
  });
  document.addEventListener("keydown", pressed);
}

/** The frame of the sign under the pointer: a fix, an estimate, or the frame itself. */
function pointed(event) {
  for (const name of ["fix", "frames", "best-place", "track-smoothed", "track"]) {
    const mark = nearest(map, map.layers[name], event);
    if (mark) return mark.get("at");
  }
  return undefined;
}

function pressed(event) {
  if (busy(event) || document.querySelector("dialog[open]") || event.target.matches?.("input[type=range]")) return;
  const models = [...document.querySelectorAll(".models a")];
  const now = models.findIndex((link) => link.hasAttribute("aria-current"));
  const step = (by) => models[(now + by + models.length) % models.length]?.click();
  const actions = {
    ArrowRight: () => choose(Math.min(current + 1, flight.length - 1), { by: "keys" }),
    ArrowLeft: () => choose(Math.max(current - 1, 0), { by: "keys" }),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    w: worst,
    p: () => axis?.play(),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  action();
  event.preventDefault();
}

/** W: the worst frame, then the next worst, twenty of them. */
function worst() {
  const among = ranked.filter((at) => !range || within(at)).slice(0, WORST);
  const next = current === latestWorst ? among.indexOf(current) + 1 : 0;
  latestWorst = among[next % among.length];
  choose(latestWorst, { by: "keys" });
}

function setRange(bounds) {
  range = bounds;
  noteSoon({ t: bounds ? bounds.map((value) => Number(value.toFixed(2))).join("-") : null });
  for (const { layer } of Object.values(map?.layers ?? {})) layer.changed();
  if (map) drawEllipses();
  film.dim((at) => Boolean(range) && !within(at));
  if (range && !within(current)) choose(flight.x.findIndex((_, at) => within(at)), { by: "axis" });
}

function rangeOfAddress() {
  const bounds = address().get("t")?.match(/^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/);
  return bounds ? [Number(bounds[1]), Number(bounds[2])] : null;
}

// --- the beginning --------------------------------------------------------------------------------

async function begin() {
  const nothing = { method: facts.method, error_m: [], at: [], match: [], verdict: [], margin: [], probability: [], ellipse_95: null };
  [flight, primary] = await Promise.all([flightColumns(), facts.primary ? answerOf(facts.model, facts.primary) : nothing]);
  if (!primary.at.length) for (const column of ["error_m", "at", "match", "verdict", "margin", "probability"]) primary[column] = flight.index.map(() => null);
  colours = colouring();
  ranked = worstFirst();
  range = rangeOfAddress();
  film = new Film(document.querySelector(".film"), flight, { caption, query: facts.query, choose: (at) => choose(at, { by: "film" }) });
  if (holder && facts.map) map = makeMap(holder, facts.map);
  if (panel) marks = new Marks(panel.querySelector(".marks"), (at, written) => brief(at).then((frame) => Object.assign(frame, written)));
  if (map) {
    prepare();
    const known = drawFrames();
    if (facts.primary && map.layers[primary.method]) draw(primary);
    const estimates = primary.at.filter((place, at) => place && !denied(at));
    map.fit([...known, ...estimates]);
    legend();
    drawEllipses();
    holder.classList.add("ready");
  }
  listen();
  const wanted = flight.place.get(Number(address().get("frame")));
  choose(wanted ?? 0, { by: "start", keep: wanted !== undefined });
  if (wanted !== undefined) film.show(wanted, { scroll: true });
  axis = await timeAxis(document.querySelector(".time-axis"), { flight, facts, primary, answerOf, range, choose: (at) => choose(at, { by: "axis" }), setRange, note: noteSoon, metres });
  axis?.mark(current);
  if (range) setRange(range);
  main.dataset.ready = "true";
}

if (facts) begin();
