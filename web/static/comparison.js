// Comparing: a hit beside the query, blinking with it, or laid over it. Digits choose a rank, ↑ ↓ a backbone, B blinks.

import { busy } from "./shell.js";
import { note } from "./walk.js";

const BLINK_MS = 700;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let blinking = 0;

const panel = () => document.getElementById("compare");
const rows = () => [...document.querySelectorAll(".row")];
const chosenModel = () => new URL(location.href).searchParams.get("model");
const currentRow = () => rows().find((row) => row.dataset.model === chosenModel()) ?? rows()[0];

// --- comparing -----------------------------------------------------------------------------------

function compare(hit) {
  const row = hit.closest(".row");
  const dialog = panel();
  document.querySelectorAll(".hit[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
  hit.setAttribute("aria-current", "true");
  const image = hit.querySelector("img");
  const tile = dialog.querySelector(".tile-image");
  tile.src = hit.dataset.full;
  tile.alt = image.alt;
  dialog.querySelector(".compare-model").textContent = row.dataset.model;
  dialog.querySelector(".compare-hit").textContent = image.alt;
  dialog.querySelector(".compare-place").textContent = hit.dataset.place;
  mark(row);
  note({ model: row.dataset.model, rank: hit.dataset.rank, view: dialog.dataset.view });
  if (!dialog.open) dialog.showModal();
}

function view(name) {
  const dialog = panel();
  dialog.dataset.view = name;
  for (const button of dialog.querySelectorAll("[data-view-name]"))
    button.setAttribute("aria-pressed", button.dataset.viewName === name);
  clearInterval(blinking);
  dialog.classList.remove("query-on-top");
  if (name === "blink" && !calm.matches)
    blinking = setInterval(() => dialog.classList.toggle("query-on-top"), BLINK_MS);
  note({ view: name });
}

/** B: start to blink; again: stop. Where motion is not wanted, each press shows the other picture. */
function blink() {
  const dialog = panel();
  if (dialog.dataset.view !== "blink") view("blink");
  else if (calm.matches) dialog.classList.toggle("query-on-top");
  else view("side");
}

function closed() {
  clearInterval(blinking);
  document.querySelectorAll(".hit[aria-current]").forEach((hit) => hit.removeAttribute("aria-current"));
  note({ rank: null, view: null });
}

function mark(row) {
  rows().forEach((other) => other.classList.toggle("current", other === row));
}

function step(by) {
  const all = rows();
  const row = all[(all.indexOf(currentRow()) + by + all.length) % all.length];
  if (!row) return;
  const rank = new URL(location.href).searchParams.get("rank");
  mark(row);
  note({ model: row.dataset.model });
  const hit = row.querySelector(`.hit[data-rank="${rank}"]`);
  if (panel().open && hit) compare(hit);
  else row.scrollIntoView({ block: "nearest" });
}

// --- events --------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const hit = event.target.closest(".hit");
  const button = event.target.closest("[data-view-name]");
  if (hit) event.preventDefault();
  if (hit) compare(hit);
  else if (button) view(button.dataset.viewName);
});

document.addEventListener("input", (event) => {
  if (event.target.matches(".opacity")) panel().querySelector(".query-image").style.opacity = event.target.value / 100;
});

document.addEventListener("keydown", (event) => {
  const other = document.querySelector("dialog[open]:not(#compare)");
  if (busy(event) || other || !panel() || event.target.matches?.("input, .map-view")) return;
  const hit = (rank) => currentRow()?.querySelector(`.hit[data-rank="${rank}"]`);
  const actions = {
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
    b: () => (panel().open ? blink() : hit(1) && (compare(hit(1)), blink())),
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (actions[key]) actions[key]();
  else if (/^[0-9]$/.test(key) && hit(key === "0" ? 10 : key)) compare(hit(key === "0" ? 10 : key));
  else return;
  event.preventDefault();
});

// --- each time a page is shown -------------------------------------------------------------------

function shown() {
  const dialog = panel();
  if (!dialog) return;
  dialog.addEventListener("close", closed);
  const wanted = new URL(location.href).searchParams;
  const row = currentRow();
  if (chosenModel() && rows().length > 1) mark(row);
  const hit = wanted.has("rank") && row?.querySelector(`.hit[data-rank="${wanted.get("rank")}"]`);
  if (dialog.hasAttribute("open")) dialog.removeAttribute("open"); // served open for readers without scripts
  if (hit) {
    const name = wanted.get("view") ?? "side";
    compare(hit);
    view(name);
  }
}

document.addEventListener("shown", shown);
shown();
