// What every page has: dialogs that open, commands that copy, and the keys / and ?.

document.addEventListener("click", async (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const copier = event.target.closest("[data-copies]");
  if (copier) {
    await navigator.clipboard.writeText(copier.dataset.copies);
    const label = copier.textContent;
    copier.textContent = copier.dataset.copied;
    setTimeout(() => (copier.textContent = label), 1500);
  }
});

/** True while the reader types, or a key belongs to the browser. */
export function busy(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea") !== null;
}

document.addEventListener("keydown", (event) => {
  if (busy(event)) return;
  if (event.key === "?") document.getElementById("help").showModal();
  if (event.key === "/") {
    const jump = document.getElementById("jump");
    if (jump) {
      event.preventDefault();
      jump.focus();
      jump.select();
    }
  }
});
