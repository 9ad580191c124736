// The search page: an image chosen, dropped or pasted is sent; facets apply at once; bounds are drawn on the map.

import "./comparison.js";
import { addLayer, area, drawsBounds, filled, makeMap, nearest, outline, pictureLayer, replace, sideOf } from "./map.js";
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

let map = null;
let rank = null; // of the hit that is pointed at

const edgeStyle = (edge) => (edge.get("rank") === rank ? filled("#0000", "#fff", 4) : edge.get("rank") === 1 ? filled("#0000", "#56b4e9", 2.5) : filled("#0000", "#fff", 1.5));

async function draw() {
  const holder = document.querySelector(".map");
  if (!holder || holder.map) return;
  const answer = await fetch(document.querySelector("link[rel=alternate]").href);
  if (!answer.ok) return;
  const page = await answer.json();
  if (!page.map || !holder.isConnected) return;
  map = makeMap(holder, page.map);
  if (!map) return;
  const pictures = pictureLayer(map, "laid");
  const hits = addLayer(map, "hits", { title: map.texts.hits, style: edgeStyle });
  addLayer(map, "drawn", { style: filled("rgb(11 98 138 / .18)", "#56b4e9", 2) });
  const corners = [];
  for (const hit of [...(page.answer?.hits ?? [])].reverse()) {
    const at = [hit.location.lon, hit.location.lat];
    const [west, south, east, north] = hit.bbox;
    corners.push([west, south], [east, north]);
    if (hit.rank === 1) pictures.tile(at, hit.image, hit.angle_deg, sideOf(map, hit.bbox));
    hits.source.addFeature(outline(map, at, hit.angle_deg, sideOf(map, hit.bbox), { rank: hit.rank }));
  }
  if (page.where.bbox) showBounds(page.where.bbox);
  if (corners.length) map.fit(corners, { margin: 0.15 });
  drawsBounds(map, (bounds) => {
    showBounds(bounds);
    const form = document.querySelector(".facets");
    form.elements.bbox.value = bounds.map((degrees) => degrees.toFixed(6)).join(",");
    ask(form);
  });
  map.chart.on("pointermove", (event) => !event.dragging && point(nearest(map, hits, event)?.get("rank") ?? null));
  map.chart.on("singleclick", (event) => {
    const edge = nearest(map, hits, event);
    if (edge) document.querySelector(`.hit[data-rank="${edge.get("rank")}"]`)?.click();
  });
  holder.classList.add("ready");
}

function showBounds([west, south, east, north]) {
  replace(map.layers.drawn, [area(map, [[west, north], [east, north], [east, south], [west, south]])]);
}

function point(at) {
  if (rank === at) return;
  rank = at;
  map?.layers.hits?.layer.changed();
}

for (const kind of ["pointerover", "focusin"])
  document.addEventListener(kind, (event) => {
    const hit = event.target.closest?.(".hit");
    if (hit) point(Number(hit.dataset.rank));
  });

document.addEventListener("shown", draw);
draw();
