// Keys of the frame page: arrows walk frames and backbones, digits choose a rank, the jump field goes to a frame.

import { busy } from "./shell.js";

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-jump]");
  if (!form) return;
  event.preventDefault();
  location.assign(form.dataset.jump.replace(/0$/, form.elements.frame.value) + location.search);
});

document.addEventListener("keydown", (event) => {
  if (busy(event) || document.querySelector("dialog[open]")) return;
  if (event.key === "ArrowLeft") document.querySelector("a[rel=prev]")?.click();
  else if (event.key === "ArrowRight") document.querySelector("a[rel=next]")?.click();
});
