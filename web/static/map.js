// A map of one reference set: plain SVG in metres around the set's centre, so that it needs no network and no WebGL.
// Layers, from the ground up: ground, tiles, laid, lines, points, drawn.

const SVG = "http://www.w3.org/2000/svg";
const LAYERS = ["ground", "tiles", "laid", "lines", "points", "drawn"];
const SHARPER_FROM = 1.6; // screen pixels per pixel of the ground picture, from which single tiles are loaded
const MOST_TILES = 48; // single tiles on the map at once

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Degrees the short way round, in [-180, 180). */
const wrapped = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;

/** A map inside `holder`. facts: what the server says of the set (`map` in a page's JSON). */
export function makeMap(holder, facts) {
  const { origin, metres_per_degree: per, extent } = facts;
  const svg = element("svg", { class: "map-svg", role: "img", "aria-label": holder.dataset.label, tabindex: "0" });
  const layers = Object.fromEntries(LAYERS.map((name) => [name, element("g", { class: `layer-${name}` })]));
  svg.append(...Object.values(layers));
  holder.prepend(svg);

  const xy = (lon, lat) => [wrapped(lon - origin.lon) * per.lon, (origin.lat - lat) * per.lat];
  const lonlat = (x, y) => [wrapped(origin.lon + x / per.lon), origin.lat - y / per.lat];
  const [left, bottom] = xy(extent[0], extent[1]);
  const [right, top] = xy(extent[2], extent[3]);
  const whole = { x: left, y: top, width: right - left, height: bottom - top };
  let view = { ...whole };
  const changed = [];

  const size = () => svg.getBoundingClientRect();
  const metresPerPixel = () => Math.max(view.width / size().width, view.height / size().height) || 1;

  function show(next) {
    view = next;
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    svg.style.setProperty("--px", metresPerPixel());
    changed.forEach((tell) => tell());
  }

  function fit(points, margin = 0.08, least = facts.footprint_m ? 2 * facts.footprint_m : 400) {
    if (!points.length) return show({ ...whole });
    const xs = points.map(([x]) => x);
    const ys = points.map(([, y]) => y);
    const width = Math.max(Math.max(...xs) - Math.min(...xs), least) * (1 + 2 * margin);
    const height = Math.max(Math.max(...ys) - Math.min(...ys), least) * (1 + 2 * margin);
    const x = (Math.max(...xs) + Math.min(...xs) - width) / 2;
    const y = (Math.max(...ys) + Math.min(...ys) - height) / 2;
    show({ x, y, width, height });
  }

  /** Zoom by a factor around a point of the screen, or around the middle. */
  function zoom(factor, clientX, clientY) {
    const box = size();
    const scale = metresPerPixel();
    const middleX = view.x + view.width / 2;
    const middleY = view.y + view.height / 2;
    const atX = clientX === undefined ? middleX : middleX + (clientX - box.left - box.width / 2) * scale;
    const atY = clientY === undefined ? middleY : middleY + (clientY - box.top - box.height / 2) * scale;
    const width = Math.min(Math.max(view.width * factor, 60), 4 * Math.max(whole.width, whole.height));
    const by = width / view.width;
    show({ x: atX - (atX - view.x) * by, y: atY - (atY - view.y) * by, width, height: view.height * by });
  }

  function place(event) {
    const box = size();
    const scale = metresPerPixel();
    return [
      view.x + view.width / 2 + (event.clientX - box.left - box.width / 2) * scale,
      view.y + view.height / 2 + (event.clientY - box.top - box.height / 2) * scale,
    ];
  }

  /** A place in metres as pixels from the map's upper left corner. */
  const screen = (x, y) => {
    const { width, height } = size();
    const scale = metresPerPixel();
    return [width / 2 + (x - view.x - view.width / 2) / scale, height / 2 + (y - view.y - view.height / 2) / scale];
  };

  const map = { svg, layers, facts, onView: (tell) => changed.push(() => tell(metresPerPixel())), refresh: () => show(view), screen, xy, lonlat, fit, zoom, place, whole: () => show({ ...whole }), drawing: null };
  listen(svg, map, () => view, show, metresPerPixel);
  new ResizeObserver(() => show(view)).observe(svg);
  if (facts.ground) layers.ground.append(groundPicture(facts, whole));
  if (facts.tiles) sharpen(map, changed, () => view, metresPerPixel, whole);
  show(view);
  return map;
}

function groundPicture(facts, whole) {
  return element("image", { href: facts.ground, ...whole, preserveAspectRatio: "none" });
}

/** The outline of a tile: `side` metres wide, its upper edge facing `heading`. */
export function outline(map, [lon, lat], heading, side, attributes = {}) {
  const [x, y] = map.xy(lon, lat);
  return element("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, transform: `rotate(${heading} ${x} ${y})`, ...attributes });
}

/** A tile's side in metres, from its bounds. */
export function sideOf(map, [west, south, east, north]) {
  return map.xy(west, south)[1] - map.xy(east, north)[1];
}

/** The ellipse of 95 % around a point of a fix, in its true size. */
export function ellipse(map, { lon, lat, ellipse_95: { major_m, minor_m, azimuth_deg } }, attributes = {}) {
  const [cx, cy] = map.xy(lon, lat);
  return element("ellipse", { cx, cy, rx: major_m, ry: minor_m, transform: `rotate(${azimuth_deg - 90} ${cx} ${cy})`, ...attributes });
}

/** A word beside a place, of constant size on the screen. */
export function word(map, [lon, lat], text, attributes = {}) {
  const [x, y] = map.xy(lon, lat);
  const made = element("text", { class: "place-name", x: 9, y: 4, ...attributes });
  made.textContent = text;
  made.style.transform = `translate(${x}px, ${y}px) scale(var(--px))`;
  return made;
}

/** A picture laid at its place: `side` metres wide, its upper edge facing `heading`. */
export function laid(map, [lon, lat], href, heading, side, attributes = {}) {
  const [x, y] = map.xy(lon, lat);
  return element("image", {
    href,
    x: x - side / 2,
    y: y - side / 2,
    width: side,
    height: side,
    preserveAspectRatio: "none",
    transform: `rotate(${heading} ${x} ${y})`,
    ...attributes,
  });
}

/** A sign of constant size on the screen: on, near, far, those of fixes, or a plain dot. */
export function sign(map, [lon, lat], kind, attributes = {}) {
  const [x, y] = map.xy(lon, lat);
  const shapes = {
    near: "M0-6 5.6 4.4-5.6 4.4Z",
    fix: "M0-6 6 0 0 6-6 0Z",
    "no-match": "M-5.5 0A5.5 5.5 0 1 1 5.5 0 5.5 5.5 0 1 1-5.5 0ZM-3.9 3.9 3.9-3.9",
    "runner-up": "M-9 0A9 9 0 1 1 9 0 9 9 0 1 1-9 0Z",
    truth: "M0-11V-3M0 11V3M-11 0H-3M11 0H3",
    far: "M-5-3.2-3.2-5 0-1.8 3.2-5 5-3.2 1.8 0 5 3.2 3.2 5 0 1.8-3.2 5-5 3.2-1.8 0Z",
  };
  const d = shapes[kind] ?? "M-4.6 0A4.6 4.6 0 1 1 4.6 0 4.6 4.6 0 1 1-4.6 0Z";
  const made = element("path", { d, class: `sign ${kind ?? ""}`, ...attributes });
  made.style.transform = `translate(${x}px, ${y}px) scale(calc(var(--px) * var(--sign, 1)))`;
  return made;
}

// --- moving about ---------------------------------------------------------------------------------

function listen(svg, map, view, show, metresPerPixel) {
  const fingers = new Map();
  let apart = 0;

  svg.addEventListener("pointerdown", (event) => {
    if (event.button || map.drawing?.begin(event)) return;
    fingers.set(event.pointerId, event);
    apart = distance(fingers);
  });
  svg.addEventListener("pointermove", (event) => {
    if (map.drawing?.move(event)) return;
    const before = fingers.get(event.pointerId);
    if (!before) return;
    if (!svg.hasPointerCapture(event.pointerId) && Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) > 3)
      svg.setPointerCapture(event.pointerId); // not before it moves: a click must reach the sign below it
    fingers.set(event.pointerId, event);
    if (fingers.size === 1) {
      const scale = metresPerPixel();
      const now = view();
      show({ ...now, x: now.x - (event.clientX - before.clientX) * scale, y: now.y - (event.clientY - before.clientY) * scale });
    } else {
      const [a, b] = [...fingers.values()];
      const now = distance(fingers);
      if (apart && now) map.zoom(apart / now, (a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2);
      apart = now;
    }
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"])
    svg.addEventListener(end, (event) => {
      if (end === "pointerup" && map.drawing?.end(event)) return;
      if (end !== "pointerleave" || !svg.hasPointerCapture(event.pointerId)) fingers.delete(event.pointerId);
    });
  // The wheel belongs to the page; with Ctrl, or once the map has been clicked into, it zooms.
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== svg) return;
    event.preventDefault();
    map.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), event.clientX, event.clientY);
  }, { passive: false });
  svg.addEventListener("dblclick", (event) => map.zoom(0.5, event.clientX, event.clientY));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") map.zoom(0.7);
    else if (event.key === "-") map.zoom(1 / 0.7);
    else if (event.key === "Home") map.whole();
    else return;
    event.preventDefault();
  });
  svg.closest(".map")?.addEventListener("click", (event) => {
    const button = event.target.closest("[data-map]");
    if (button?.dataset.map === "in") map.zoom(0.6);
    else if (button?.dataset.map === "out") map.zoom(1 / 0.6);
    else if (button?.dataset.map === "whole") map.whole();
    else if (button?.dataset.map === "tiles") button.setAttribute("aria-pressed", map.layers.tiles.classList.toggle("shown"));
    else if (button?.dataset.map === "draw") button.setAttribute("aria-pressed", svg.classList.toggle("drawing"));
  });
}

function distance(fingers) {
  const [a, b] = [...fingers.values()];
  return b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 0;
}

// --- tiles ----------------------------------------------------------------------------------------

/** Footprints as one path, and the single tiles' own pictures where the view is close enough. */
async function sharpen(map, changed, view, metresPerPixel, whole) {
  const { angle_deg: heading, tiles } = await tilesOf(map.facts.tiles);
  const side = map.facts.footprint_m ?? 0;
  if (!side) return;
  const half = side / 2;
  const placed = tiles.map(([lon, lat, href]) => ({ at: [lon, lat], xy: map.xy(lon, lat), href }));
  map.layers.tiles.append(
    element("path", { d: placed.map(({ xy: [x, y] }) => `M${(x - half).toFixed(1)} ${(y - half).toFixed(1)}h${side}v${side}h${-side}z`).join("") }),
  );
  const group = map.layers.ground.appendChild(element("g"));
  const shown = new Map();
  const groundPixel = Math.max(whole.width, whole.height) / 2048;
  let waiting = 0;

  function update() {
    const now = view();
    const near = groundPixel / metresPerPixel() > SHARPER_FROM;
    const wanted = near
      ? placed.filter(({ xy: [x, y] }) => Math.abs(x - now.x - now.width / 2) < now.width / 2 + half && Math.abs(y - now.y - now.height / 2) < now.height / 2 + half)
      : [];
    const few = wanted.length <= 4 * MOST_TILES ? thinned(wanted, side) : [];
    const keep = new Set(few.slice(0, MOST_TILES).map(({ href }) => href));
    for (const [href, image] of shown)
      if (!keep.has(href)) {
        image.remove();
        shown.delete(href);
      }
    for (const { at, href } of few)
      if (keep.has(href) && !shown.has(href)) {
        const image = laid(map, at, href, heading, side);
        shown.set(href, group.appendChild(image));
      }
  }
  changed.push(() => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  update();
}

const tilesKnown = new Map(); // address → promise: frames share their references

function tilesOf(address) {
  if (!tilesKnown.has(address))
    tilesKnown.set(address, fetch(address).then((answer) => (answer.ok ? answer.json() : { angle_deg: 0, tiles: [] })));
  return tilesKnown.get(address);
}

/** Of overlapping tiles those that are enough to cover the ground: no two closer than three quarters of a side. */
function thinned(tiles, side) {
  const kept = [];
  for (const tile of tiles)
    if (kept.every(({ xy: [x, y] }) => Math.abs(x - tile.xy[0]) > 0.75 * side || Math.abs(y - tile.xy[1]) > 0.75 * side))
      kept.push(tile);
  return kept;
}
