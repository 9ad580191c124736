// Charts that one can hover, zoom, walk by the arrow keys and click through to the frame behind a point.

const DASHES = [[], [6, 2], [2, 1.5], [7, 2, 1.5, 2], [4, 1], [1, 1]];
const NEAR_PX = 18; // from a point that the pointer means
const SVG = "http://www.w3.org/2000/svg";

/** Draw every `.plot` below `root` in place of the picture beside it, which is shown where that cannot be. */
export async function drawCharts(root = document) {
  const places = [...root.querySelectorAll(".plot[data-chart]:not([data-drawn])")];
  if (!places.length) return;
  for (const place of places) place.dataset.drawn = "";
  let uPlot;
  try {
    uPlot = (await import("./vendor/uPlot.esm.js")).default;
  } catch {
    places.forEach(showPicture); // this copy was not built
    return;
  }
  const coming = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) {
        coming.unobserve(target);
        const place = target.querySelector(".plot");
        begin(uPlot, place).catch((error) => {
          console.warn(`${place.dataset.chart}: ${error.message}`);
          showPicture(place);
        });
      }
  }, { rootMargin: "400px" });
  for (const place of places) coming.observe(place.parentElement); // a hidden place never comes into view
}

function showPicture(place) {
  place.hidden = true;
  place.parentElement.querySelector("picture").hidden = false;
}

async function begin(uPlot, place) {
  const answer = await fetch(place.dataset.chart);
  if (!answer.ok) throw new Error(answer.statusText);
  const chart = await answer.json();
  place.hidden = false;
  const hidden = new Set();
  const panels = [];
  const labels = new Map(chart.panels.flatMap((panel) => panel.series.filter((series) => series.label).map((series) => [series.label, series])));
  if (labels.size > 1) place.append(legend(labels, hidden, () => panels.forEach((panel) => panel.draw())));
  const grid = document.createElement("div");
  grid.className = chart.panels.length > 2 ? "panels many" : "panels";
  place.append(grid);
  if (grid.classList.contains("many")) place.append(axesNote(chart));
  const ends = { x: scaleEnds(chart, "x"), y: scaleEnds(chart, "y") };
  for (const panel of chart.panels) panels.push(new PanelPlot(uPlot, grid, place, chart, panel, ends, hidden));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((panel) => panel.draw()));
}

/** What the axes of small panels show, said once. */
function axesNote({ x, y }) {
  const note = document.createElement("p");
  note.className = "axes";
  note.textContent = [x.label && `→ ${x.label}`, y.label && `↑ ${y.label}`].filter(Boolean).join("   ");
  return note;
}

/** The scale that all panels share: as the server says, else as their points need. */
function scaleEnds(chart, name) {
  const axis = chart[name];
  if (axis.ends) return axis.ends;
  if (axis.names.length) return [-0.6, axis.names.length - 0.4];
  const columns = name === "x" ? ["x"] : ["y", "low", "high"];
  const values = chart.panels.flatMap((panel) => panel.series.flatMap((series) => columns.flatMap((column) => series[column] ?? [])));
  const known = values.filter((value) => value !== null && (!axis.logarithmic || value > 0));
  if (!known.length) return axis.logarithmic ? [1, 10] : [0, 1];
  let [low, high] = known.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  if (axis.logarithmic) {
    const room = Math.max(1.05, (high / low) ** 0.04);
    return [low / room, high * room];
  }
  const room = 0.04 * (high - low || Math.abs(high) || 1);
  return axis.ticks.length ? [Math.min(low, axis.ticks[0]), Math.max(high, axis.ticks.at(-1))] : [low - room, high + room];
}

class PanelPlot {
  constructor(uPlot, grid, place, chart, panel, ends, hidden) {
    Object.assign(this, { uPlot, place, chart, panel, ends, hidden, zoom: null, chosen: null, spots: [] });
    this.box = document.createElement("div");
    this.box.className = "panel";
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", [panel.title, place.dataset.label, place.dataset.keys].filter(Boolean).join(". "));
    this.title = document.createElement("p");
    this.title.className = "panel-title";
    this.title.textContent = panel.title;
    this.canvas = document.createElement("div");
    this.note = document.createElement("p");
    this.note.className = "panel-note";
    this.note.setAttribute("role", "status");
    this.box.append(...(panel.title ? [this.title] : []), this.canvas, this.note);
    grid.append(this.box);
    this.probe = document.createElement("i");
    this.box.append(this.probe);
    this.probe.hidden = true;
    const data = [null, ...panel.series.map((series) => [series.x, series.y])];
    this.plot = new uPlot(this.options(), data, this.canvas);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("blur", () => this.choose(null));
  }

  size() {
    const rows = this.chart.y.names.length;
    const height = rows ? 90 + 34 * rows : this.chart.panels.length > 2 ? 210 : 320;
    return { width: Math.max(160, this.box.clientWidth), height };
  }

  options() {
    const { x, y } = this.chart;
    const scale = (name, axis) => ({
      time: false,
      distr: axis.logarithmic ? 3 : 1,
      dir: axis.names.length ? -1 : 1,
      range: () => this.zoom?.[name] ?? this.ends[name],
    });
    const grid = { stroke: "rgb(128 128 128 / .25)", width: 1 };
    const look = (axis, room) => ({
      stroke: () => this.colour("var(--dim)"),
      grid,
      ticks: grid,
      font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif",
      ...(axis.label && this.chart.panels.length < 3 ? { label: axis.label, labelSize: 20 } : {}),
      size: room,
      ...(axis.names.length ? { splits: () => axis.names.map((_, row) => row) } : {}),
      ...(axis.ticks.length ? { splits: () => axis.ticks } : {}),
      ...(axis.logarithmic ? { splits: (_, at, low, high) => logTicks(low, high), filter: (plot, ticks, at) => apart(plot, ticks, at) } : {}),
      values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : axisText(axis, tick))),
    });
    return {
      ...this.size(),
      mode: 2,
      scales: { x: scale("x", x), y: scale("y", y) },
      axes: [look(x, 30), look(y, this.nameWidth(y))],
      series: [null, ...this.panel.series.map((series) => ({ label: series.label, stroke: "#000", facets: [{ scale: "x", auto: true }, { scale: "y", auto: true }], paths: (plot, at) => this.paint(plot, at) }))],
      legend: { show: false },
      cursor: { points: { show: false }, drag: { x: true, y: true, uni: 12, setScale: false } },
      hooks: {
        setSelect: [(plot) => this.zoomTo(plot.select)],
        draw: [() => this.mark()],
        ready: [(plot) => this.listen(plot.over)],
      },
    };
  }

  nameWidth(axis) {
    if (!axis.names.length) return 52;
    const context = document.createElement("canvas").getContext("2d");
    context.font = "12px system-ui, sans-serif";
    return Math.min(0.45 * Math.max(160, this.box.clientWidth), 16 + Math.max(...axis.names.map((name) => context.measureText(name).width)));
  }

  /** A CSS colour as this page's scheme has it. */
  colour(css) {
    this.probe.style.color = css;
    return getComputedStyle(this.probe).color;
  }

  colourOf(series) {
    return this.colour(series.muted ? "var(--dim)" : `var(--s${series.index % 8})`);
  }

  draw() {
    this.plot.redraw(true, true);
  }

  // --- painting -----------------------------------------------------------------------------------

  paint(plot, at) {
    const series = this.panel.series[at - 1];
    if (this.hidden.has(series.label)) return null;
    const { ctx, bbox } = plot;
    const spots = (this.spots[at - 1] = series.x.map((x, i) => this.spot(plot, series, i)));
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = ctx.fillStyle = this.colourOf(series);
    ctx.lineWidth = (series.muted ? 1.2 : 1.6) * devicePixelRatio;
    if (series.low && series.high) this.paintInterval(plot, series, spots);
    if (series.form === "points") this.paintPoints(ctx, series, spots);
    else this.paintLine(ctx, series, spots);
    ctx.restore();
    return null;
  }

  /** Canvas pixels of a point, null where it is not known. */
  spot(plot, series, i, y = series.y[i]) {
    const x = series.x[i];
    const none = x === null || y === null || (this.chart.x.logarithmic && x <= 0) || (this.chart.y.logarithmic && y <= 0);
    return none ? null : [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
  }

  paintLine(ctx, series, spots) {
    ctx.setLineDash(dashes(series).map((length) => length * 1.6 * devicePixelRatio));
    ctx.beginPath();
    let before = null;
    for (const spot of spots) {
      if (spot && before) {
        if (series.form === "steps") ctx.lineTo(spot[0], before[1]);
        ctx.lineTo(...spot);
      } else if (spot) ctx.moveTo(...spot);
      before = spot;
    }
    ctx.stroke();
    ctx.setLineDash([]);
    if (!series.muted && !series.dotted && spots.length <= 12) for (const spot of spots) if (spot) shape(ctx, series.index, spot, 3.2 * devicePixelRatio);
  }

  paintPoints(ctx, series, spots) {
    const radius = (spots.length > 60 ? 2.6 : 5) * devicePixelRatio;
    ctx.globalAlpha = spots.length > 60 ? 0.7 : 1;
    for (const spot of spots) if (spot) shape(ctx, series.muted ? 6 : series.index, spot, radius);
    if (series.muted && !series.frames) this.paintLine(ctx, series, spots);
  }

  /** A band of a line, a bar of a point. */
  paintInterval(plot, series, spots) {
    const { ctx } = plot;
    const ends = spots.map((spot, i) => spot && [this.spot(plot, series, i, series.low[i]), this.spot(plot, series, i, series.high[i])]);
    if (series.form === "points") {
      for (const end of ends)
        if (end?.[0] && end[1]) {
          ctx.beginPath();
          ctx.moveTo(...end[0]);
          ctx.lineTo(...end[1]);
          ctx.stroke();
        }
      return;
    }
    const known = ends.filter((end) => end?.[0] && end[1]);
    if (!known.length) return;
    ctx.globalAlpha = 0.15;
    ctx.beginPath();
    known.forEach(([low], i) => (i ? ctx.lineTo(...low) : ctx.moveTo(...low)));
    for (const [, high] of known.reverse()) ctx.lineTo(...high);
    ctx.fill();
    ctx.globalAlpha = 1;
  }

  // --- pointing -----------------------------------------------------------------------------------

  listen(over) {
    over.addEventListener("mousemove", (event) => this.choose(this.nearest(event)));
    over.addEventListener("mouseleave", () => this.choose(null));
    over.addEventListener("click", (event) => this.open(this.nearest(event), event.ctrlKey || event.metaKey));
    over.addEventListener("dblclick", () => this.zoomTo(null));
  }

  nearest(event) {
    const { left, top } = this.plot.over.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const { left: boxLeft, top: boxTop } = this.plot.bbox;
    let best = null;
    let nearest = NEAR_PX ** 2;
    this.panel.series.forEach((series, at) => {
      if (this.hidden.has(series.label)) return;
      this.spots[at]?.forEach((spot, i) => {
        if (!spot) return;
        const away = ((spot[0] - boxLeft) / devicePixelRatio - x) ** 2 + ((spot[1] - boxTop) / devicePixelRatio - y) ** 2;
        if (away <= nearest) [best, nearest] = [{ at, i }, away]; // of equal ones what is drawn last
      });
    });
    return best;
  }

  choose(point) {
    if (point?.at === this.chosen?.at && point?.i === this.chosen?.i) return;
    this.chosen = point;
    this.note.textContent = point ? this.text(point) : "";
    this.plot.over.style.cursor = point && this.urlOf(point) ? "pointer" : "";
    this.plot.redraw(false, false);
  }

  text({ at, i }) {
    const series = this.panel.series[at];
    const { x, y } = this.chart;
    const parts = [series.label || this.panel.title];
    if (series.frames) parts.push(this.place.dataset.frame.replace("{n}", series.frames[i]));
    parts.push(`${x.label} ${axisText(x, series.x[i], true)}`);
    if (!y.names.length) parts.push(`${y.label} ${axisText(y, series.y[i], true)}`);
    if (series.low && series.low[i] !== null && series.high[i] !== null) parts.push(`95 %: ${axisText(y, series.low[i], true)} – ${axisText(y, series.high[i], true)}`);
    return parts.join(" · ");
  }

  urlOf({ at, i }) {
    const { url, frames } = this.panel.series[at];
    return url && (frames ? url.replace("{index}", frames[i]) : url);
  }

  open(point, apart) {
    const url = point && this.urlOf(point);
    if (!url) return;
    if (apart) window.open(url, "_blank", "noopener");
    else location.assign(url);
  }

  /** A ring around the chosen point. */
  mark() {
    const point = this.chosen;
    const spot = point && this.spot(this.plot, this.panel.series[point.at], point.i);
    if (!spot) return;
    const { ctx } = this.plot;
    ctx.save();
    ctx.strokeStyle = this.colour("var(--ink)");
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.beginPath();
    ctx.arc(...spot, 7 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.stroke();
    ctx.restore();
  }

  zoomTo(box) {
    if (box && (box.width < 6 || box.height < 6)) return;
    const value = (px, name) => this.plot.posToVal(px, name);
    const span = (first, last) => [Math.min(first, last), Math.max(first, last)];
    this.zoom = box && {
      x: span(value(box.left, "x"), value(box.left + box.width, "x")),
      y: span(value(box.top, "y"), value(box.top + box.height, "y")),
    };
    this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.plot.setData(this.plot.data);
  }

  // --- keys ---------------------------------------------------------------------------------------

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (along || across) this.walk(along ?? 0, across ?? 0);
    else if (event.key === "Enter" && this.chosen) this.open(this.chosen, false);
    else if (event.key === "Escape") {
      this.choose(null);
      this.zoomTo(null);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** To the next point by x of this series, or to the next series. */
  walk(along, across) {
    const shown = this.panel.series.map((series, at) => at).filter((at) => !this.hidden.has(this.panel.series[at].label) && this.order(at).length);
    if (!shown.length) return;
    let place = Math.max(0, shown.indexOf(this.chosen?.at));
    if (this.chosen) place = Math.min(shown.length - 1, Math.max(0, place + across));
    const at = shown[place];
    const order = this.order(at);
    let position = this.chosen?.at === at ? order.indexOf(this.chosen.i) + along : 0;
    position = Math.min(order.length - 1, Math.max(0, position));
    this.choose({ at, i: order[position] });
  }

  order(at) {
    const series = this.panel.series[at];
    return series.x.map((_, i) => i).filter((i) => this.spot(this.plot, series, i)).sort((a, b) => series.x[a] - series.x[b]);
  }
}

function dashes({ muted, dotted, index }) {
  return dotted ? [1, 1.5] : muted ? [] : DASHES[index % DASHES.length];
}

// --- the legend -----------------------------------------------------------------------------------

function legend(labels, hidden, redraw) {
  const list = document.createElement("div");
  list.className = "legend";
  for (const [label, series] of labels) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(sign(series), label);
    button.addEventListener("click", () => {
      if (!hidden.delete(label)) hidden.add(label);
      button.setAttribute("aria-pressed", String(!hidden.has(label)));
      redraw();
    });
    list.append(button);
  }
  return list;
}

/** What stands for a series: its line, or its shape. */
function sign(series) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" })) svg.setAttribute(name, value);
  svg.style.color = series.muted ? "var(--dim)" : `var(--s${series.index % 8})`;
  const path = document.createElementNS(SVG, "path");
  if (series.form === "points") {
    path.setAttribute("d", outline(series.muted ? 6 : series.index, 12, 6, 4));
    path.setAttribute("fill", "currentColor");
    if (series.muted) path.setAttribute("stroke", "currentColor");
  } else {
    path.setAttribute("d", "M0 6H24");
    path.setAttribute("stroke", "currentColor");
    path.setAttribute("stroke-width", "2");
    path.setAttribute("stroke-dasharray", dashes(series).join(" "));
  }
  svg.append(path);
  return svg;
}

/** The path of a series' shape: told apart without colour. */
function outline(index, x, y, r) {
  const corners = (...points) => `M${points.map(([dx, dy]) => `${x + dx * r} ${y + dy * r}`).join("L")}Z`;
  const star = (count, inner) => corners(...Array.from({ length: 2 * count }, (_, i) => {
    const angle = (i * Math.PI) / count - Math.PI / 2;
    const size = i % 2 ? inner : 1;
    return [size * Math.cos(angle), size * Math.sin(angle)];
  }));
  return [
    () => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    () => corners([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]),
    () => corners([0, -1.1], [1, 0.9], [-1, 0.9]),
    () => corners([0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]),
    () => corners([0, 1.1], [1, -0.9], [-1, -0.9]),
    () => star(5, 0.45),
    () => `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`,
    () => star(4, 0.4),
  ][index % 8]();
}

function shape(ctx, index, [x, y], r) {
  const path = new Path2D(outline(index, x, y, r));
  if (index % 8 === 6) ctx.stroke(path);
  else ctx.fill(path);
}

/** Round numbers on a logarithmic scale: 1, 2 and 5, more of them where it spans little. */
function logTicks(low, high) {
  for (const steps of [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const step of steps) ticks.push(step * 10 ** power);
    const within = ticks.filter((tick) => tick >= low && tick <= high);
    if (within.length > 2) return within;
  }
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((_, i, all) => i % Math.ceil(all.length / 6) === 0);
}

/** Ticks of a scale without those whose numbers would run into the one before. */
function apart(plot, ticks, at) {
  const [scale, room] = at ? ["y", 14] : ["x", 30];
  let last = -Infinity;
  return ticks.map((tick) => {
    const place = plot.valToPos(tick, scale);
    if (Math.abs(place - last) < room) return null;
    last = place;
    return tick;
  });
}

// --- numbers --------------------------------------------------------------------------------------

function axisText(axis, value, exact = false) {
  if (axis.names.length) return axis.names[Math.round(value)] ?? "";
  if (axis.percent) return `${(100 * value).toFixed(exact ? 1 : 0)} %`;
  const digits = exact ? 4 : 3;
  return Number(value.toPrecision(digits)).toLocaleString(document.documentElement.lang, { maximumSignificantDigits: digits });
}

drawCharts();
