// The table of a long track: the page brings its first rows, the rest is fetched when the reader opens it.

async function fetchRest(table, link) {
  try {
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
    const body = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#track-table tbody");
    if (!answer.ok || !body) return; // the link stays
    table.querySelector("tbody").replaceWith(body);
    link.parentElement.remove();
  } catch {
    // the link stays
  }
}

// A toggle does not bubble.
document.addEventListener(
  "toggle",
  (event) => {
    const link = event.target.id === "track-table" && event.target.open && document.getElementById("track-rest");
    if (link && !link.dataset.asked) {
      link.dataset.asked = "yes";
      fetchRest(event.target, link);
    }
  },
  true,
);
