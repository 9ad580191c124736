// One map for all pages: OpenLayers (the global `ol`, served from the package) over tiles of the references' ground.
// Positions are longitude and latitude in degrees; signs keep their size on the screen, all else its size on the ground.

const ol = globalThis.ol;
const FAR_ZOOMS = 3; // out, from where the whole set fills the map
const SNAP_PX = 12; // from the pointer to the sign it means
const GROUNDS = 10; // the lowest layer that is no ground

const SHAPES = {
  near: "M0-6 5.6 4.4-5.6 4.4Z",
  fix: "M0-6 6 0 0 6-6 0Z",
  "no-match": "M-5.5 0A5.5 5.5 0 1 1 5.5 0 5.5 5.5 0 1 1-5.5 0ZM-3.9 3.9 3.9-3.9",
  "runner-up": "M-9 0A9 9 0 1 1 9 0 9 9 0 1 1-9 0Z",
  truth: "M0-11V-3M0 11V3M-11 0H-3M11 0H3",
  far: "M-5-3.2-3.2-5 0-1.8 3.2-5 5-3.2 1.8 0 5 3.2 3.2 5 0 1.8-3.2 5-5 3.2-1.8 0Z",
  track: "M-4.5-4.5H4.5V4.5H-4.5Z",
  at: "M-11 0A11 11 0 1 1 11 0 11 11 0 1 1-11 0Z",
  dot: "M-4.6 0A4.6 4.6 0 1 1 4.6 0 4.6 4.6 0 1 1-4.6 0Z",
};
const INK = "#14181b";
const PAINTS = {
  on: { fill: "#0072b2", stroke: "#fff" },
  near: { fill: "#e69f00" },
  far: { fill: "#ffd23f" }, // bright, and dark around it: it is seen on any ground
  fix: { fill: "#56b4e9" },
  "frame-dot": { fill: "#56b4e9" },
  track: { fill: "#8ee3a1" },
  "ground-point": { fill: "#fff" },
  "no-match": { fill: "#fff6", width: 1.8 },
  "runner-up": { stroke: "#ffb833", width: 2.4, halo: 4.5 },
  truth: { stroke: "#fff", width: 2, halo: 4.5 },
  at: { stroke: "#fff", width: 3, halo: 6 },
};

/** Degrees the short way round, in [-180, 180). */
const wrapped = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;

// --- the map --------------------------------------------------------------------------------------

/** A map inside `holder`. facts: what the server says of it (`map` in a page's JSON). Null, and said on the page, where
 *  the library is not there. */
export function makeMap(holder, facts) {
  const texts = JSON.parse(holder.dataset.texts);
  if (!ol) return missing(holder, texts.missing);
  const place = document.createElement("div");
  place.className = "map-view";
  place.tabIndex = 0;
  place.setAttribute("role", "application");
  place.setAttribute("aria-label", `${holder.dataset.label}. ${texts.keys}`);
  holder.prepend(place);

  const at = ([lon, lat]) => ol.proj.fromLonLat([facts.origin.lon + wrapped(lon - facts.origin.lon), lat]);
  const [west, south, east, north] = facts.extent;
  const whole = [...at([west, south]), ...at([east < west ? east + 360 : east, north])];
  const across = Math.max(whole[2] - whole[0], whole[3] - whole[1]);
  const view = new ol.View({
    center: ol.extent.getCenter(whole),
    resolution: across / 500,
    maxResolution: Math.min(156543, (across / 300) * 2 ** FAR_ZOOMS),
    minResolution: 0.01,
    smoothResolutionConstraint: false,
  });
  const rotate = new ol.control.Rotate({ autoHide: false, tipLabel: texts.north, label: northArrow() });
  const chart = new ol.Map({
    target: place,
    view,
    controls: [new ol.control.ScaleLine({ minWidth: 70 }), rotate],
    interactions: ol.interaction.defaults.defaults({ keyboard: false, shiftDragZoom: false }),
  });
  for (const ground of facts.layers) chart.addLayer(groundLayer(ground));

  const map = {
    chart,
    view,
    place,
    holder,
    facts,
    texts,
    at,
    layers: {},
    stretch: 1 / Math.cos((facts.origin.lat * Math.PI) / 180), // Mercator's metres of one metre here
    lonlat: (point) => ol.proj.toLonLat(point).map((value, axis) => (axis ? value : wrapped(value))),
    /** Pixels from the map's upper left corner. */
    screen: (lonlat) => chart.getPixelFromCoordinate(at(lonlat)),
    metresPerPixel: () => view.getResolution() / map.stretch,
    onView: (tell) => view.on("change:resolution", () => tell(map.metresPerPixel())),
    whole: () => view.fit(whole, { padding: [8, 8, 8, 8] }),
    goal: null, // the resolution that a zoom is on its way to: the next one starts from there
    zoom(factor) {
      map.goal = view.getConstrainedResolution((map.goal ?? view.getResolution()) * factor);
      view.cancelAnimations();
      view.animate({ resolution: map.goal, duration: calm() ? 0 : 160 }, (whole) => whole && (map.goal = null));
    },
    fit(points, { margin = 0.08, least = facts.footprint_m ? 2 * facts.footprint_m : 400 } = {}) {
      if (!points.length) return map.whole();
      const extent = ol.extent.boundingExtent(points.map(at));
      const [width, height] = [extent[2] - extent[0], extent[3] - extent[1]];
      const [x, y] = ol.extent.getCenter(extent);
      const [w, h] = [width, height].map((side) => (Math.max(side, least * map.stretch) * (1 + 2 * margin)) / 2);
      view.fit([x - w, y - h, x + w, y + h]);
    },
  };
  map.whole();
  holder.map = map;
  addressing(map);
  buttons(map);
  keys(map);
  if (facts.tiles) coverage(map);
  if (facts.localizability?.length) localizability(map);
  holder.querySelector(".map-layers")?.toggleAttribute("hidden", false);
  return map;
}

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function missing(holder, text) {
  const note = document.createElement("p");
  note.className = "note";
  note.setAttribute("role", "alert");
  note.textContent = text;
  holder.prepend(note);
  holder.classList.add("bare");
  return null;
}

function northArrow() {
  const arrow = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  arrow.setAttribute("viewBox", "-10 -12 20 24");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M0-10 6 9 0 5.5-6 9Z");
  arrow.append(path);
  return arrow;
}

/** Tiles of a ground; none is asked for beyond its bounds. */
function groundLayer(ground) {
  const [west, south, east, north] = ground.extent;
  const width = (east - west + 360) % 360 || 360;
  const lon = (x, z) => (x / 2 ** z) * 360 - 180;
  const lat = (y, z) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / 2 ** z))) * 180) / Math.PI;
  const source = new ol.source.XYZ({
    minZoom: ground.min_zoom,
    maxZoom: ground.max_zoom,
    transition: 0,
    tileUrlFunction: ([z, x, y]) => {
      const from = (((lon(x, z) - west) % 360) + 360) % 360;
      const beside = from > width && from + 360 / 2 ** z < 360;
      if (beside || lat(y, z) <= south || lat(y + 1, z) >= north) return undefined;
      return ground.url.replace("{z}", z).replace("{x}", x).replace("{y}", y);
    },
  });
  return new ol.layer.Tile({ source, zIndex: 0, properties: { title: ground.name } });
}

// --- layers ---------------------------------------------------------------------------------------

/** A layer of features below those made after it. `title`: its name in the list of layers, where it has one there;
 *  `shows`: whether it is on at first; `onShow`: called before it is shown for the first time. */
export function addLayer(map, name, { title = null, shows = true, style = null, onShow = null, large = false } = {}) {
  const source = new ol.source.Vector({ wrapX: false });
  const kind = large ? ol.layer.VectorImage : ol.layer.Vector;
  const zIndex = GROUNDS + Object.keys(map.layers).length;
  const layer = new kind({ source, style, zIndex, visible: shows, ...(large ? { imageRatio: 1.5 } : {}) });
  map.chart.addLayer(layer);
  const made = { name, source, layer, onShow, shown: shows };
  map.layers[name] = made;
  if (title) listed(map, made, title);
  return made;
}

export function replace({ source }, features) {
  source.clear(true);
  source.addFeatures(features);
}

function listed(map, { name, layer, onShow }, title) {
  const list = map.holder.querySelector(".map-layers ul");
  if (!list) return;
  const line = document.createElement("li");
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = layer.getVisible();
  box.dataset.layer = name;
  box.addEventListener("change", () => showLayer(map, name, box.checked));
  label.append(box, ` ${title}`);
  line.append(label);
  list.append(line);
}

/** Turn a layer on or off, wherever that was asked for. */
export async function showLayer(map, name, on) {
  const made = map.layers[name];
  if (on && made.onShow) {
    const load = made.onShow;
    made.onShow = null;
    await load();
  }
  made.layer.setVisible(on);
  const box = map.holder.querySelector(`[data-layer="${name}"]`);
  if (box) box.checked = on;
  map.holder.dispatchEvent(new CustomEvent("layer", { detail: { name, on } }));
}

/** The ground that the references cover, and their footprints: both asked for when first shown. */
function coverage(map) {
  const load = async () => {
    const { tiles } = await tilesOf(map.facts.tiles);
    const side = map.facts.footprint_m;
    if (!side) return;
    const squares = tiles.map(([lon, lat]) => [ring(map, [lon, lat], 0, side)]);
    const feature = () => new ol.Feature(new ol.geom.MultiPolygon(squares));
    replace(map.layers.coverage, [feature()]);
    replace(map.layers.tiles, [feature()]);
    map.layers.coverage.onShow = map.layers.tiles.onShow = null;
  };
  const { texts } = map;
  addLayer(map, "coverage", { title: texts.coverage, shows: false, large: true, onShow: load, style: new ol.style.Style({ fill: new ol.style.Fill({ color: "rgb(86 180 233 / .3)" }) }) });
  addLayer(map, "tiles", { title: texts.footprints, shows: false, large: true, onShow: load, style: line("rgb(255 255 255 / .55)", 1) });
}

// --- localizability -------------------------------------------------------------------------------

const PLACE_ALPHA = 0.62;

/** The expected error of each place of the references, under the backbone that the legend names; asked for when first
 *  shown. `?layer=localizability` shows it at once. */
function localizability(map) {
  const legend = map.holder.querySelector(".places");
  const choice = legend.querySelector("select");
  let sets = [];
  const shown = () => sets.flatMap((set) => set.backbones.filter(({ backbone }) => backbone === choice.value));
  const draw = () => {
    const grounds = shown();
    const most = 2 * Math.max(...grounds.map(({ footprint_m }) => footprint_m));
    replace(map.layers.localizability, grounds.flatMap((ground) => placeCells(map, ground, most)));
    legend.querySelector(".scale-high").textContent = `≥ ${Math.round(most)} m`;
    legend.querySelector(".places-line").textContent = groundLine(map.texts, grounds);
  };
  const load = async () => {
    const answers = await Promise.all(map.facts.localizability.map((address) => fetch(address)));
    const documents = await Promise.all(answers.map((answer) => answer.json()));
    sets = documents.filter(({ backbones }) => backbones);
    const names = [...new Set(sets.flatMap(({ backbones }) => backbones.map(({ backbone }) => backbone)))];
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.length) draw();
    else legend.querySelector(".places-line").textContent = documents.map(({ detail, title }) => detail ?? title).join(" ");
  };
  addLayer(map, "localizability", { title: map.texts.localizability, shows: false, large: true, onShow: load, style: (cell) => cell.get("style") });
  choice.addEventListener("change", draw);
  map.holder.addEventListener("layer", ({ detail: { name, on } }) => name === "localizability" && (legend.hidden = !on));
  map.chart.on("pointermove", ({ coordinate, dragging }) => {
    if (dragging || legend.hidden || !sets.length) return;
    const [cell] = map.layers.localizability.source.getFeaturesAtCoordinate(coordinate);
    legend.querySelector(".places-line").textContent = cell ? placeLine(map.texts, cell.get("place")) : groundLine(map.texts, shown());
  });
  if (new URLSearchParams(location.search).get("layer") === "localizability") showLayer(map, "localizability", true);
}

/** A square of a stride's side for each place: filled by its error, dashed where nothing could answer. */
function placeCells(map, { places, stride_m }, most) {
  return places.map((place) => {
    const [lon, lat, error] = place;
    const color = error === null ? null : badness(error / most).replace(")", ` / ${PLACE_ALPHA})`);
    const style = color ? filled(color, "#14181b55", 0.5) : remembered("no answer", () => new ol.style.Style({ fill: new ol.style.Fill({ color: "#14181b88" }), stroke: new ol.style.Stroke({ color: "#fff", width: 1.5, lineDash: [4, 4] }) }));
    return outline(map, [lon, lat], 0, stride_m, { place, style });
  });
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function groundLine(texts, grounds) {
  return grounds
    .map(({ ground_share, measured_at, excluded, is_current }) => {
      const without = { view: texts.view, place: texts["own-place"], neighbours: texts.neighbours }[excluded];
      const line = texts.measured.replace("{share}", percent(ground_share)).replace("{date}", measured_at.slice(0, 10)).replace("{excluded}", without);
      return is_current ? line : `${line}. ${texts.outdated}`;
    })
    .join(" · ");
}

function placeLine(texts, [, , error, share, margin]) {
  const answer = error === null ? texts.unanswered : `${Math.round(error)} m`;
  return texts.place.replace("{error}", answer).replace("{share}", percent(share)).replace("{margin}", margin === null ? "–" : margin.toFixed(4));
}

const tilesKnown = new Map(); // address → promise: frames share their references

function tilesOf(address) {
  if (!tilesKnown.has(address))
    tilesKnown.set(address, fetch(address).then((answer) => (answer.ok ? answer.json() : { angle_deg: 0, tiles: [] })));
  return tilesKnown.get(address);
}

// --- features and their styles --------------------------------------------------------------------

export const point = (map, lonlat, facts = {}) => new ol.Feature({ geometry: new ol.geom.Point(map.at(lonlat)), ...facts });
export const way = (map, lonlats, facts = {}) => new ol.Feature({ geometry: new ol.geom.LineString(lonlats.map(map.at)), ...facts });
export const ways = (map, lines, facts = {}) => new ol.Feature({ geometry: new ol.geom.MultiLineString(lines.map((line) => line.map(map.at))), ...facts });
export const area = (map, lonlats, facts = {}) => new ol.Feature({ geometry: new ol.geom.Polygon([[...lonlats, lonlats[0]].map(map.at)]), ...facts });

/** The corners on the map of a square `side` metres wide whose upper edge faces `heading`: upper left, upper right,
 *  lower right, lower left, upper left. */
function ring(map, lonlat, heading, side) {
  const [x, y] = map.at(lonlat);
  const half = (side * stretchAt(lonlat)) / 2;
  const turn = (heading * Math.PI) / 180;
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return [[-1, 1], [1, 1], [1, -1], [-1, -1], [-1, 1]].map(([right, ahead]) => [
    x + half * (right * cos + ahead * sin),
    y + half * (ahead * cos - right * sin),
  ]);
}

const stretchAt = ([, lat]) => 1 / Math.cos((lat * Math.PI) / 180);

/** The outline of a tile. */
export const outline = (map, lonlat, heading, side, facts = {}) => new ol.Feature({ geometry: new ol.geom.Polygon([ring(map, lonlat, heading, side)]), ...facts });

/** A tile's side in metres, from its bounds. */
export const sideOf = (map, [, south, , north]) => (north - south) * map.facts.metres_per_degree.lat;

/** The ellipse of 95 % around a position, in its true size: semi-axes in metres, the larger one's azimuth. */
export function ellipse(map, lonlat, major, minor, azimuth, facts = {}) {
  const [x, y] = map.at(lonlat);
  const grown = stretchAt(lonlat);
  const turn = (azimuth * Math.PI) / 180;
  const edge = Array.from({ length: 49 }, (_, step) => {
    const angle = (step * Math.PI) / 24;
    const [ahead, right] = [major * grown * Math.cos(angle), minor * grown * Math.sin(angle)];
    return [x + ahead * Math.sin(turn) + right * Math.cos(turn), y + ahead * Math.cos(turn) - right * Math.sin(turn)];
  });
  return new ol.Feature({ geometry: new ol.geom.Polygon([edge]), ...facts });
}

const styles = new Map();

function remembered(key, make) {
  if (!styles.has(key)) styles.set(key, make());
  return styles.get(key);
}

export const line = (color, width, lineDash) => remembered(`line ${color} ${width} ${lineDash}`, () => new ol.style.Style({ stroke: new ol.style.Stroke({ color, width, lineDash }) }));

export const filled = (fill, stroke, width = 1.5) =>
  remembered(`filled ${fill} ${stroke} ${width}`, () => new ol.style.Style({ fill: new ol.style.Fill({ color: fill }), stroke: new ol.style.Stroke({ color: stroke, width }) }));

/** A sign of constant size: what it says by its shape, it says by its colour too. `name`: a word beside it. */
export function sign(kind, { fill = null, scale = 1, name = null } = {}) {
  return remembered(`sign ${kind} ${fill} ${scale} ${name}`, () => {
    const text = name === null ? undefined : new ol.style.Text({ text: name, font: "650 12px system-ui, sans-serif", offsetX: 10, textAlign: "left", fill: new ol.style.Fill({ color: "#fff" }), stroke: new ol.style.Stroke({ color: INK, width: 3 }) });
    return new ol.style.Style({ image: new ol.style.Icon({ img: drawnSign(kind, fill), scale: scale / 3 }), text });
  });
}

/** Three times as large as it is shown, for sharp screens. */
function drawnSign(kind, fill) {
  return remembered(`drawn ${kind} ${fill}`, () => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 84;
    const pen = canvas.getContext("2d");
    const paint = { stroke: INK, width: 1.2, ...PAINTS[kind] };
    const path = new Path2D(SHAPES[kind] ?? (kind === "ground-point" ? SHAPES.fix : SHAPES.dot));
    pen.setTransform(3, 0, 0, 3, 42, 42);
    pen.lineJoin = "round";
    if (paint.halo) {
      pen.strokeStyle = INK;
      pen.lineWidth = paint.halo;
      pen.stroke(path);
    } else {
      pen.strokeStyle = paint.stroke === INK ? "#fff9" : "#000a"; // light around dark, dark around light
      pen.lineWidth = paint.width + 1.6;
      pen.stroke(path);
    }
    if (fill ?? paint.fill) {
      pen.fillStyle = fill ?? paint.fill;
      pen.fill(path);
    }
    pen.strokeStyle = paint.stroke;
    pen.lineWidth = paint.width;
    pen.stroke(path);
    return canvas;
  });
}

/** The feature of `layer` nearest to an event of the map, within reach of a finger; undefined without one. */
export function nearest(map, layer, event) {
  if (!layer?.layer.getVisible()) return undefined;
  const close = layer.source.getClosestFeatureToCoordinate(event.coordinate);
  if (!close) return undefined;
  const pixel = map.chart.getPixelFromCoordinate(close.getGeometry().getClosestPoint(event.coordinate));
  return Math.hypot(pixel[0] - event.pixel[0], pixel[1] - event.pixel[1]) <= SNAP_PX ? close : undefined;
}

// --- pictures laid in place -----------------------------------------------------------------------

/** The CSS matrix3d that lays a box of `width` x `height` pixels, its origin at the upper left, on four points of the
 *  screen: upper left, upper right, lower right, lower left. The unit square's projective map onto a quadrilateral is
 *  in P. Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3. */
export function matrixOnto([[x0, y0], [x1, y1], [x2, y2], [x3, y3]], width, height) {
  const [dx1, dx2, sx] = [x1 - x2, x3 - x2, x0 - x1 + x2 - x3];
  const [dy1, dy2, sy] = [y1 - y2, y3 - y2, y0 - y1 + y2 - y3];
  const size = dx1 * dy2 - dx2 * dy1;
  const g = (sx * dy2 - dx2 * sy) / size;
  const h = (dx1 * sy - sx * dy1) / size;
  const across = [x1 - x0 + g * x1, y1 - y0 + g * y1, 0, g].map((value) => value / width);
  const down = [x3 - x0 + h * x3, y3 - y0 + h * y3, 0, h].map((value) => value / height);
  return `matrix3d(${[...across, ...down, 0, 0, 1, 0, x0, y0, 0, 1].join(", ")})`;
}

/** A layer of pictures, each laid on four corners; they move with the map, below what is made after. */
export function pictureLayer(map, name) {
  const sheet = document.createElement("div");
  sheet.className = "map-pictures";
  const pictures = new Map(); // image → its corners on the map
  const zIndex = GROUNDS + Object.keys(map.layers).length;
  const layer = new ol.layer.Layer({
    zIndex,
    render: ({ coordinateToPixelTransform: t }) => {
      for (const [image, corners] of pictures) {
        image.hidden = !image.naturalWidth;
        if (image.hidden) continue;
        const onScreen = corners.map(([x, y]) => [t[0] * x + t[2] * y + t[4], t[1] * x + t[3] * y + t[5]]);
        image.style.transform = matrixOnto(onScreen, image.naturalWidth, image.naturalHeight);
      }
      return sheet;
    },
  });
  map.chart.addLayer(layer);
  const add = (corners, href, className) => {
    const image = new Image();
    image.className = className;
    image.alt = "";
    image.hidden = true;
    image.addEventListener("load", () => layer.changed());
    pictures.set(image, corners);
    sheet.append(image);
    image.src = href;
    return image;
  };
  map.layers[name] = {
    name,
    layer,
    sheet,
    clear() {
      pictures.clear();
      sheet.replaceChildren();
      layer.changed();
    },
    /** A picture whose corners are at these positions: upper left, upper right, lower right, lower left. */
    lay: (corners, href, className = "laid") => add(corners.map(map.at), href, className),
    /** A square picture, `side` metres wide, its upper edge facing `heading`. */
    tile: (lonlat, href, heading, side) => add(ring(map, lonlat, heading, side).slice(0, 4), href, "laid"),
  };
  return map.layers[name];
}

// --- what a reader does ---------------------------------------------------------------------------

function buttons(map) {
  const { holder } = map;
  const drawn = { interaction: null };
  holder.addEventListener("click", (event) => {
    const button = event.target.closest("[data-map]");
    const action = button?.dataset.map;
    if (action === "in") map.zoom(0.6);
    else if (action === "out") map.zoom(1 / 0.6);
    else if (action === "whole") map.whole();
    else if (action === "measure") measure(map, drawn, button);
    else if (action === "draw") button.setAttribute("aria-pressed", holder.classList.toggle("drawing"));
  });
}

function keys(map) {
  map.place.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") map.zoom(0.7);
    else if (event.key === "-") map.zoom(1 / 0.7);
    else if (event.key === "Home") map.whole();
    else if (event.shiftKey && steps[event.key]) {
      const [x, y] = map.view.getCenter();
      const step = 100 * map.view.getResolution();
      const [right, up] = steps[event.key];
      map.view.animate({ center: [x + right * step, y + up * step], duration: calm() ? 0 : 120 });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Lines that a reader draws, with their length; pressed again, or with Escape, they are gone. */
function measure(map, drawn, button) {
  const layer = map.layers.measured ?? addLayer(map, "measured", { style: [line(INK, 5), line("#ffd23f", 2.5)] });
  const output = map.holder.querySelector(".map-length");
  const on = !drawn.interaction;
  button.setAttribute("aria-pressed", on);
  layer.source.clear();
  output.textContent = on ? map.texts.measure : "";
  if (!on) {
    map.chart.removeInteraction(drawn.interaction);
    drawn.interaction = null;
    return;
  }
  drawn.interaction = new ol.interaction.Draw({ source: layer.source, type: "LineString", style: line("#ffd23f", 2.5) });
  map.chart.addInteraction(drawn.interaction);
  drawn.interaction.on("drawstart", ({ feature }) => {
    layer.source.clear();
    feature.getGeometry().on("change", ({ target }) => (output.textContent = lengthText(ol.sphere.getLength(target))));
  });
  map.place.addEventListener("keydown", (event) => event.key === "Escape" && drawn.interaction && measure(map, drawn, button), { once: true });
}

export const lengthText = (metres) => (metres < 10_000 ? `${metres.toFixed(metres < 100 ? 1 : 0)} m` : `${(metres / 1000).toFixed(2)} km`);

/** Longitude and latitude under the pointer, and x and y in the set's CRS. */
function addressing(map) {
  const output = map.holder.querySelector(".map-position");
  if (!output) return;
  let grid = null;
  let asked = false;
  let pointed = null; // longitude and latitude
  const say = () => (output.textContent = pointed ? [positionText(...pointed), grid && gridText(grid, ...pointed)].filter(Boolean).join(" · ") : "");
  map.chart.on("pointermove", async ({ coordinate, dragging }) => {
    if (dragging) return;
    pointed = map.lonlat(coordinate);
    say();
    if (asked) return;
    asked = true;
    const address = map.facts.layers.findLast((ground) => ground.grid)?.grid;
    const answer = address && (await fetch(address));
    if (answer?.ok) grid = await answer.json();
    say();
  });
  map.place.addEventListener("pointerleave", () => {
    pointed = null;
    say();
  });
}

const positionText = (lon, lat) => `${Math.abs(lat).toFixed(6)}° ${lat < 0 ? "S" : "N"} ${Math.abs(lon).toFixed(6)}° ${lon < 0 ? "W" : "E"}`;

/** x and y by the set's polynomials (`MapGrid`); nothing outside the extent that they are for. */
function gridText({ crs, extent: [west, south, east, north], powers, x, y }, lon, lat) {
  const width = (east - west + 360) % 360;
  const u = (2 * wrapped(lon - west - width / 2)) / width;
  const v = (2 * (lat - south)) / (north - south) - 1;
  if (Math.max(Math.abs(u), Math.abs(v)) > 1.02) return null;
  const at = (terms) => powers.reduce((sum, [i, j], term) => sum + terms[term] * u ** i * v ** j, 0);
  return `${crs} ${at(x).toFixed(1)} ${at(y).toFixed(1)}`;
}

/** Call `done([west, south, east, north])` for bounds that a reader drags with Shift, or with the button pressed. */
export function drawsBounds(map, done) {
  const box = new ol.interaction.DragBox({
    className: "map-box",
    condition: ({ originalEvent }) => originalEvent.shiftKey || map.holder.classList.contains("drawing"),
  });
  box.on("boxend", () => {
    const [left, bottom, right, top] = box.getGeometry().getExtent();
    done([...map.lonlat([left, bottom]), ...map.lonlat([right, top])]);
  });
  map.chart.addInteraction(box);
}

// --- colours --------------------------------------------------------------------------------------

// Plasma, dark to bright: the bad end is the bright one, whatever lies below.
const RAMP = [[75, 3, 161], [125, 3, 168], [168, 34, 150], [203, 70, 121], [229, 107, 93], [248, 148, 65], [253, 195, 40], [240, 249, 33]];
const STEPS = 15;

/** The colour of a share of badness from 0 (good) to 1 (bad), in a few steps that share their signs. */
export function badness(share) {
  const stepped = Math.round(Math.max(0, Math.min(1, share)) * STEPS) / STEPS;
  const spot = stepped * (RAMP.length - 1);
  const low = Math.min(Math.floor(spot), RAMP.length - 2);
  const [r, g, b] = RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (spot - low)));
  return `rgb(${r} ${g} ${b})`;
}
