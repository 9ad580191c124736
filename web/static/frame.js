// The frame page: the neighbours are a key away and already fetched.

import "./comparison.js";
import "./fix-map.js";
import "./frame-map.js";
import { busy } from "./shell.js";
import { go, prefetch } from "./walk.js";

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const neighbour = event.target.closest("a[rel=prev], a[rel=next]");
  if (!neighbour) return;
  event.preventDefault();
  go(neighbour.href);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-jump]");
  if (!form) return;
  event.preventDefault();
  go(form.dataset.jump.replace(/0$/, form.elements.frame.value) + location.search);
});

document.addEventListener("keydown", (event) => {
  const other = document.querySelector("dialog[open]:not(#compare)");
  if (busy(event) || other || event.target.matches?.("input[type=range]")) return;
  const side = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (!side) return;
  document.querySelector(`a[rel=${side}]`)?.click();
  event.preventDefault();
});

addEventListener("popstate", () => go(location.href, { push: false }));

function shown() {
  const neighbours = [...document.querySelectorAll("a[rel=next], a[rel=prev]")].map((link) => link.href);
  (window.requestIdleCallback ?? setTimeout)(() => neighbours.forEach(prefetch));
}

document.addEventListener("shown", shown);
shown();
