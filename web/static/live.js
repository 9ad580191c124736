// The live page: events say that there is something new; the page itself, fetched again, shows it.

const LEAST_MS = 700; // between two looks, however fast frames come
const RETRY_MS = 3000; // after one that failed: a busy server answers the next
const page = document.getElementById("live");
let looking = false;
let waits = false;
let isHeldByFocus = false;

async function look() {
  waits = true;
  if (looking) return;
  looking = true;
  waits = false;
  const shown = await show();
  waits ||= !shown;
  setTimeout(
    () => {
      looking = false;
      if (waits) look();
    },
    shown ? LEAST_MS : RETRY_MS,
  );
  tick();
}

/** Fetch the page and put its parts in place; false where no page came. */
async function show() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    if (!answer.ok || !fresh) return false;
    replaceUnlessFocused(fresh);
    return true;
  } catch {
    return false; // the events' connection says that the server is gone
  }
}

/** Leave the part that holds the reader's focus where it is, until the focus goes elsewhere. */
function replaceUnlessFocused(fresh) {
  isHeldByFocus = page.contains(document.activeElement);
  if (!isHeldByFocus) return page.replaceChildren(...fresh.children);
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
page.addEventListener("focusout", () => {
  if (isHeldByFocus) look();
});
setInterval(tick, 1000);
