// Figures that take their time: fetched after the page has painted, and put in their place.

async function fill(place) {
  try {
    const answer = await fetch(place.dataset.from, { headers: { Accept: "text/html" } });
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    const charts = made.querySelector(".charts");
    if (!answer.ok || !charts) throw new Error(made.querySelector("main p")?.textContent);
    place.replaceChildren(charts);
  } catch (error) {
    const note = document.createElement("p");
    note.className = "note";
    note.setAttribute("role", "alert");
    note.textContent = `${place.dataset.failed} ${error.message ?? ""}`;
    place.replaceChildren(note);
  }
}

document.querySelectorAll(".later").forEach(fill);
