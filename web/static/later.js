// Figures that take their time: fetched after the page has painted, and put in their place.

async function fill(place) {
  try {
    const answer = await fetch(place.dataset.from, { headers: { Accept: "text/html" } });
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    const charts = made.querySelector(place.dataset.takes ?? ".charts");
    if (!answer.ok || !charts) throw new Error(made.querySelector("main p")?.textContent);
    place.replaceChildren(charts);
    if (charts.querySelector(".plot")) (await import("./charts.js")).drawCharts(place);
  } catch (error) {
    const note = document.createElement("p");
    note.className = "note";
    note.setAttribute("role", "alert");
    note.textContent = `${place.dataset.failed} ${error.message ?? ""}`;
    place.replaceChildren(note);
  }
}

/** At once, or what is far down the page once it comes into view. */
const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) {
        seen.unobserve(target);
        fill(target);
      }
  },
  {},
);

for (const place of document.querySelectorAll(".later"))
  if (place.dataset.when === "seen") seen.observe(place);
  else fill(place);
