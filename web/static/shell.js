// What every page has: dialogs that open, commands that copy, and the keys / and ?.

document.addEventListener("click", async (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const copier = event.target.closest("[data-copies]");
  if (copier) await copy(copier);
});

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copies);
  } catch {
    return; // not allowed here (plain HTTP beyond this machine): the command stands beside the button
  }
  const label = button.textContent;
  button.textContent = button.dataset.copied;
  setTimeout(() => (button.textContent = label), 1500);
}

/** True while the reader types, or the key belongs to the browser. */
export function busy(event) {
  const field = event.target.closest?.("input:not([type=range]), select, textarea");
  return event.ctrlKey || event.metaKey || event.altKey || Boolean(field);
}

document.addEventListener("keydown", (event) => {
  if (busy(event)) return;
  if (event.key === "?" && !document.querySelector("dialog[open]")) document.getElementById("help").showModal();
  const jump = document.getElementById("jump");
  if (event.key === "/" && jump) {
    event.preventDefault();
    jump.focus();
    jump.select();
  }
});
