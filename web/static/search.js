// The search page: an image chosen, dropped or pasted is sent; facets apply at once; bounds are drawn on the map.

import "./comparison.js";
import { element, laid, makeMap, outline, sideOf } from "./map.js";
import { go } from "./walk.js";

document.documentElement.classList.add("scripted");

const problem = (text) => {
  const place = document.getElementById("upload-problem");
  place.textContent = text ?? "";
  place.hidden = !text;
};
const busyWith = (state) => document.querySelector(".answers")?.setAttribute("aria-busy", state);

// --- the image ------------------------------------------------------------------------------------

async function send(file) {
  const form = document.querySelector(".drop");
  problem(null);
  if (file.size > Number(form.dataset.most)) return problem(form.dataset.tooLarge);
  const body = new FormData();
  for (const [name, value] of chosen(document.querySelector(".facets"))) body.append(name, value);
  for (const name of ["image", "flight", "frame"]) body.delete(name);
  body.append("image", file, file.name || "pasted");
  busyWith(true);
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
    const facts = await answer.json();
    if (!answer.ok) throw new Error(`${facts.detail} (${facts.request_id})`);
    await go(facts.url);
  } catch (error) {
    problem(error instanceof TypeError || error instanceof SyntaxError ? form.dataset.failed : error.message);
  } finally {
    busyWith(false);
  }
}

document.addEventListener("change", (event) => {
  if (event.target.matches(".drop input[type=file]") && event.target.files[0]) send(event.target.files[0]);
  const facet = event.target.closest(".facets");
  if (!facet) return;
  if (event.target.matches("[data-alone]") && event.target.checked)
    for (const other of facet.querySelectorAll(`[name="${event.target.name}"]`)) if (other !== event.target) other.checked = false;
  ask(facet);
});

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (file) send(file);
});
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    const zone = document.querySelector(".drop");
    if (!zone || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // dropped beside the zone, the browser would leave the page and show the file
    zone.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });

// --- facets ---------------------------------------------------------------------------------------

/** What was chosen, as an address spells it: headings in one list, nothing that is as it would be anyway. */
function chosen(form) {
  const asked = new URLSearchParams();
  const angles = [];
  for (const [name, value] of new FormData(form))
    if (name === "angle") angles.push(value);
    else if (value && !(name === "by" && value === "auto")) asked.append(name, value);
  if (angles.length) asked.set("angle", angles.join(","));
  return asked;
}

async function ask(form) {
  busyWith(true);
  await go(`${new URL(form.action).pathname}?${chosen(form)}`);
}

addEventListener("popstate", () => go(location.href, { push: false }));

// --- the map --------------------------------------------------------------------------------------

async function draw() {
  const holder = document.querySelector(".map");
  if (!holder || holder.querySelector(".map-svg")) return;
  const answer = await fetch(document.querySelector("link[rel=alternate]").href);
  if (!answer.ok) return;
  const page = await answer.json();
  if (!page.map) return;
  const map = makeMap(holder, page.map);
  const points = [];
  for (const hit of [...(page.answer?.hits ?? [])].reverse()) {
    const side = sideOf(map, hit.bbox);
    const at = [hit.location.lon, hit.location.lat];
    points.push(map.xy(hit.bbox[0], hit.bbox[1]), map.xy(hit.bbox[2], hit.bbox[3]));
    if (hit.rank === 1) map.layers.laid.append(laid(map, at, hit.image, hit.angle_deg, side));
    map.layers.points.append(outline(map, at, hit.angle_deg, side, { class: hit.rank === 1 ? "hit-edge first" : "hit-edge", "data-rank": hit.rank }));
  }
  if (page.where.bbox) drawn(map, page.where.bbox);
  if (points.length) map.fit(points, 0.15);
  map.drawing = drawing(map);
  holder.classList.add("ready");
}

function drawn(map, [west, south, east, north]) {
  const [left, bottom] = map.xy(west, south);
  const [right, top] = map.xy(east, north);
  map.layers.drawn.replaceChildren(element("rect", { x: left, y: top, width: right - left, height: bottom - top }));
}

/** With Shift held, or the button pressed, a drag draws bounds instead of moving the map. */
function drawing(map) {
  let from = null;
  const box = ([x1, y1], [x2, y2]) => {
    const [west, north] = map.lonlat(Math.min(x1, x2), Math.min(y1, y2));
    const [east, south] = map.lonlat(Math.max(x1, x2), Math.max(y1, y2));
    return [west, south, east, north];
  };
  return {
    begin: (event) => (event.shiftKey || map.svg.classList.contains("drawing")) && Boolean((from = map.place(event))),
    move: (event) => from && (drawn(map, box(from, map.place(event))), true),
    end: (event) => {
      if (!from) return false;
      const bounds = box(from, map.place(event)).map((degrees) => degrees.toFixed(6));
      from = null;
      const form = document.querySelector(".facets");
      form.elements.bbox.value = bounds.join(",");
      ask(form);
      return true;
    },
  };
}

for (const kind of ["pointerover", "focusin"])
  document.addEventListener(kind, (event) => {
    const hit = event.target.closest?.(".hit, .hit-edge");
    if (!hit) return;
    document.querySelectorAll(".hit-edge.at").forEach((one) => one.classList.remove("at"));
    document.querySelector(`.hit-edge[data-rank="${hit.dataset.rank}"]`)?.classList.add("at");
  });
document.addEventListener("click", (event) => {
  const edge = event.target.closest?.(".hit-edge");
  if (edge) document.querySelector(`.hit[data-rank="${edge.dataset.rank}"]`)?.click();
});

document.addEventListener("shown", draw);
draw();
