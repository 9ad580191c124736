// The live page: events say that there is something new; the page itself, fetched again, shows it.

const LEAST_MS = 700; // between two looks, however fast frames come
const page = document.getElementById("live");
let looking = false;
let waits = false;

async function look() {
  if (looking) {
    waits = true;
    return;
  }
  looking = true;
  waits = false;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    if (answer.ok && fresh && !page.contains(document.activeElement)) page.replaceChildren(...fresh.children);
    else if (answer.ok && fresh) replaceUnlessFocused(fresh);
  } catch {
    // the events' connection says that the server is gone
  }
  setTimeout(() => {
    looking = false;
    if (waits) look();
  }, LEAST_MS);
  tick();
}

/** Leave the part that holds the reader's focus where it is. */
function replaceUnlessFocused(fresh) {
  const old = [...page.children];
  [...fresh.children].forEach((part, i) => {
    if (!old[i]) page.append(part);
    else if (!old[i].contains(document.activeElement)) old[i].replaceWith(part);
  });
}

function tick() {
  const time = page.querySelector("time");
  if (!time) return;
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time.dateTime)) / 1000));
  time.textContent = page.dataset.ago.replace("{s}", seconds);
}

function online(yes) {
  const note = page.querySelector(".live-offline");
  if (note) note.hidden = yes;
}

const events = new EventSource(page.dataset.events);
for (const name of ["frame", "session", "job"]) events.addEventListener(name, look);
events.addEventListener("open", () => {
  online(true);
  look();
});
events.addEventListener("error", () => online(false));
setInterval(tick, 1000);
