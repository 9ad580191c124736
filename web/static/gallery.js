// The gallery: choices apply at once, the size without asking the server, and how many rows are picked is said.

import { note } from "./walk.js";

document.documentElement.classList.add("scripted");

// On a narrow screen the pictures come first.
if (matchMedia("(max-width: 900px)").matches) document.querySelector(".asking-fold")?.removeAttribute("open");

const asking = document.querySelector(".asking");
const pairs = document.querySelector(".pairs");
const picks = document.getElementById("picks");

asking?.addEventListener("change", (event) => {
  if (event.target.dataset.restarts !== undefined) for (const name of ["a", "b"]) asking.elements[name].value = "";
  if (event.target.id !== "size") asking.requestSubmit();
});

// Fields that ask for nothing stay out of the address.
asking?.addEventListener("submit", () => {
  for (const field of asking.elements) if (field.name && (!field.value || (field.id === "size" && field.value === "3"))) field.disabled = true;
});
addEventListener("pageshow", () => {
  for (const field of asking?.elements ?? []) field.disabled = false;
});

document.getElementById("size")?.addEventListener("input", (event) => {
  if (pairs) pairs.dataset.size = event.target.value;
  note({ size: event.target.value === "3" ? null : event.target.value });
});

const PICKED = "coarseloc-picked"; // rows that were marked: they are still picked when the gallery comes back
const boxes = () => [...document.querySelectorAll("input[name=pick]")];

function count() {
  const label = picks.querySelector("strong");
  const n = boxes().filter((box) => box.checked).length;
  label.textContent = n ? label.dataset.some.replace("{n}", n) : label.dataset.none;
  for (const button of picks.querySelectorAll("[name=do]")) button.disabled = !n; // marks are written on picked frames alone
}

// What is written on frames is no part of an export's address; and the gallery comes back as it is shown now.
picks?.addEventListener("submit", ({ submitter }) => {
  const writes = submitter?.formMethod === "post";
  if (writes) {
    submitter.formAction = submitter.formAction.split("?")[0] + location.search;
    sessionStorage.setItem(PICKED, JSON.stringify(boxes().filter((box) => box.checked).map((box) => box.value)));
  }
  for (const name of ["tags", "note"]) picks.elements[name].disabled = !writes;
  setTimeout(() => ["tags", "note"].forEach((name) => (picks.elements[name].disabled = false)));
});
picks?.elements.note.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  picks.requestSubmit(picks.querySelector("[value=note]"));
});

if (picks) {
  document.addEventListener("change", (event) => event.target.name === "pick" && count());
  picks.addEventListener("click", (event) => {
    const wanted = event.target.dataset.pick;
    if (!wanted) return;
    for (const box of boxes()) box.checked = wanted === "all";
    count();
  });
  const picked = JSON.parse(sessionStorage.getItem(PICKED) ?? "[]");
  sessionStorage.removeItem(PICKED);
  for (const box of boxes()) if (picked.includes(box.value)) box.checked = true;
  addEventListener("pageshow", count);
}
