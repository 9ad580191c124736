// A flight over time: one figure of each chosen backbone and method, a frame that is scrubbed or played, a range brushed.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DASHES = { "best-place": [], fix: [6, 3], track: [2, 2], "track-smoothed": [9, 3, 2, 3] };
const LEAST_M = 0.01; // where the logarithmic axis of errors may begin; less is drawn and named as at most this
const UNTIMED_MS = 1000; // a frame, where no times are known
const STATES = ["unverified", "no-match", "lost", "acquiring", "recovered", "tracking", "estimated", "match"];

/** Fill `panel`; null without one, or without the library, which is said there. */
export async function timeAxis(panel, context) {
  if (!panel || context.flight.length < 2) return null;
  panel.hidden = false;
  const texts = JSON.parse(panel.dataset.texts);
  let uPlot;
  try {
    uPlot = (await import("./vendor/uPlot.esm.js")).default;
  } catch {
    panel.querySelector(".axis-chart").textContent = texts.missing;
    return null;
  }
  return new TimeAxis(uPlot, panel, texts, context).begin();
}

class TimeAxis {
  constructor(uPlot, panel, texts, context) {
    Object.assign(this, { uPlot, panel, texts, ...context });
    this.place = panel.querySelector(".axis-chart");
    this.metric = panel.querySelector(".axis-metric");
    this.scrub = panel.querySelector(".axis-scrub");
    this.playing = 0;
    this.current = 0;
  }

  async begin() {
    const asked = new URL(location.href).searchParams;
    const { facts, primary, flight } = this;
    if ([...this.metric.options].some((option) => option.value === asked.get("metric"))) this.metric.value = asked.get("metric");
    const lines = asked.get("lines")?.split(",") ?? [`${facts.model ?? ""}:${primary.method}`];
    for (const box of this.panel.querySelectorAll("[data-line]")) box.checked = lines.includes(box.dataset.line);
    this.scrub.max = flight.length - 1;
    this.scrub.addEventListener("input", () => this.choose(Number(this.scrub.value)));
    this.metric.addEventListener("change", () => this.changed());
    this.panel.querySelector(".axis-lines")?.addEventListener("change", () => this.changed());
    this.panel.querySelector(".axis-play").addEventListener("click", () => this.play());
    this.panel.querySelector(".axis-all").addEventListener("click", () => this.brush(null));
    new ResizeObserver(() => this.chart?.setSize(this.size())).observe(this.place);
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
    await this.draw();
    return this;
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: 150 };
  }

  async changed() {
    const lines = this.checked();
    this.note({ metric: this.metric.value === "error" ? null : this.metric.value, lines: lines.join(",") });
    await this.draw();
  }

  checked() {
    return [...this.panel.querySelectorAll("[data-line]:checked")].map((box) => box.dataset.line);
  }

  async draw() {
    const drawing = (this.drawing = Symbol());
    const chosen = this.checked();
    const settled = await Promise.allSettled(chosen.map((name) => this.answerOf(...this.parts(name), this.metric.value === "agreement")));
    if (drawing !== this.drawing) return;
    const columns = [];
    const series = [{ label: this.texts[this.flight.timed ? "seconds" : "frames"] }];
    settled.forEach(({ value: answer }, at) => {
      const values = answer && this.values(answer);
      if (!values?.some((value) => value !== null)) return;
      const [model, method] = this.parts(chosen[at]);
      const models = this.facts.models;
      series.push({
        label: `${model} ${this.facts.titles[method] ?? method}`.trim(),
        stroke: COLOURS[Math.max(0, models.indexOf(model)) % COLOURS.length],
        dash: DASHES[method],
        width: 1.4,
        spanGaps: false,
        points: { show: this.flight.length < 200, size: 4 },
        paths: this.metric.value === "state" ? this.uPlot.paths.stepped({ align: 1 }) : undefined,
        value: (_, value) => (value === null || value === undefined ? "–" : this.text(value)),
      });
      columns.push(values);
    });
    this.chart?.destroy();
    this.place.replaceChildren();
    if (!columns.length) this.place.textContent = this.texts.none;
    else this.chart = new this.uPlot(this.options(series), [this.flight.x, ...columns], this.place);
    if (!columns.length) this.chart = null;
    this.mark(this.current);
  }

  parts(name) {
    const cut = name.lastIndexOf(":");
    return [name.slice(0, cut), name.slice(cut + 1)];
  }

  values(answer) {
    const name = { error: "error_m", state: "state" }[this.metric.value] ?? this.metric.value;
    if (name === "error_m") return answer[name].map((value) => (value === null ? null : Math.max(value, LEAST_M))); // logarithmic
    if (name !== "state") return answer[name];
    return answer.state.map((state) => (state === null ? null : STATES.indexOf(state) < 0 ? null : STATES.indexOf(state)));
  }

  text(value) {
    const kind = this.metric.value;
    if (kind === "error") return `${value > LEAST_M ? "" : "≤ "}${this.metres(value)}`;
    if (kind === "probability") return `${(100 * value).toFixed(1)} %`;
    if (kind === "state") return this.facts.texts[STATES[value]] ?? STATES[value] ?? "";
    return kind === "margin" ? value.toFixed(4) : String(value);
  }

  options(series) {
    const ink = getComputedStyle(this.panel).getPropertyValue("color");
    const grid = { stroke: "rgb(128 128 128 / .25)", width: 1 };
    const kind = this.metric.value;
    const axis = { stroke: ink, grid, ticks: grid, font: "12px system-ui, sans-serif" };
    return {
      ...this.size(),
      series,
      scales: { x: { time: false, range: (_, low, high) => this.range ?? [low, high] }, y: kind === "probability" ? { range: [0, 1.02] } : { distr: kind === "error" ? 3 : 1, clamp: LEAST_M } },
      axes: [{ ...axis, size: 34, values: (_, ticks) => ticks.map((value) => (this.flight.timed || Number.isInteger(value) ? value : "")) }, { ...axis, size: 74, values: (_, ticks) => ticks.map((value) => (value === null ? "" : kind === "state" && !Number.isInteger(value) ? "" : this.text(value))) }],
      cursor: { drag: { x: true, y: false, setScale: false, dist: 6 }, points: { size: 6 } },
      legend: { live: true },
      hooks: {
        setSelect: [(chart) => chart.select.width > 5 && this.brush([chart.posToVal(chart.select.left, "x"), chart.posToVal(chart.select.left + chart.select.width, "x")])],
        draw: [(chart) => this.pen(chart)],
        ready: [(chart) => chart.over.addEventListener("click", (event) => this.choose(chart.posToIdx(event.offsetX)))],
      },
    };
  }

  /** The line at the current frame. */
  pen(chart) {
    const x = chart.valToPos(this.flight.x[this.current], "x", true);
    const { left, top, width, height } = chart.bbox;
    if (!(x >= left && x <= left + width)) return;
    chart.ctx.save();
    chart.ctx.strokeStyle = getComputedStyle(this.panel).getPropertyValue("color");
    chart.ctx.lineWidth = 2;
    chart.ctx.beginPath();
    chart.ctx.moveTo(x, top);
    chart.ctx.lineTo(x, top + height);
    chart.ctx.stroke();
    chart.ctx.restore();
  }

  brush(bounds) {
    this.range = bounds && bounds[1] > bounds[0] ? bounds : null;
    this.panel.querySelector(".axis-all").hidden = !this.range;
    this.chart?.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.chart?.setData(this.chart.data);
    this.setRange(this.range);
  }

  /** Show where the current frame is. */
  mark(at) {
    this.current = at;
    this.scrub.value = at;
    this.scrub.setAttribute("aria-valuetext", this.texts.frame.replace("{n}", this.flight.index[at]));
    this.panel.querySelector(".axis-all").hidden = !this.range;
    this.chart?.redraw(false, false);
  }

  // --- playing ------------------------------------------------------------------------------------

  play() {
    if (this.playing) return this.stop();
    this.button(true);
    let last = performance.now();
    let ahead = 0; // of the flight's time, not shown yet
    const [first, end] = this.bounds();
    if (this.current >= end || this.current < first) this.choose(first);
    const tick = (now) => {
      ahead += ((now - last) / 1000) * Number(this.panel.querySelector(".axis-speed").value);
      last = now;
      let at = this.current;
      for (let step = this.step(at); at < end && ahead >= step; step = this.step(at)) {
        ahead -= step;
        at++;
      }
      if (at !== this.current) this.choose(at);
      if (at >= end) return this.stop();
      this.playing = requestAnimationFrame(tick);
    };
    this.playing = requestAnimationFrame(tick);
  }

  /** Seconds from a frame to the next. */
  step(at) {
    const { timed, x } = this.flight;
    return timed ? Math.max(0.001, x[at + 1] - x[at]) : UNTIMED_MS / 1000;
  }

  bounds() {
    const { x } = this.flight;
    if (!this.range) return [0, x.length - 1];
    const first = x.findIndex((value) => value >= this.range[0]);
    const after = x.findIndex((value) => value > this.range[1]);
    return [Math.max(0, first), after < 0 ? x.length - 1 : after - 1];
  }

  stop() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.button(false);
  }

  button(on) {
    const button = this.panel.querySelector(".axis-play");
    button.setAttribute("aria-pressed", on);
    button.textContent = on ? "❚❚" : "▶";
    button.setAttribute("aria-label", this.texts[on ? "pause" : "play"]);
  }
}
