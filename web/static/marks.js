// Tags and note of the frame that a panel shows: written in place, and kept as a draft where the reader goes on first.

export class Marks {
  /** `saved`: is told the frame's place and what is written on it now. */
  constructor(form, saved) {
    Object.assign(this, { form, saved, at: -1, drafts: new Map() });
    form.addEventListener("input", () => {
      this.drafts.set(this.at, { tags: form.elements.tags.value, note: form.elements.note.value });
      this.say(form.dataset.unsaved);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    addEventListener("beforeunload", (event) => this.drafts.size && event.preventDefault());
  }

  /** Whether the reader writes on this frame. */
  busy(at) {
    return this.drafts.has(at) || this.form.contains(document.activeElement?.closest("input, textarea"));
  }

  show(at, address, written) {
    if (at === this.at && this.busy(at)) return;
    const draft = this.drafts.get(at);
    this.at = at;
    this.form.action = address;
    this.form.elements.tags.value = draft?.tags ?? written.tags.join(" ");
    this.form.elements.note.value = draft?.note ?? written.note;
    this.chips(written.tags);
    this.say(draft ? this.form.dataset.unsaved : "");
  }

  async save() {
    const { form, at } = this;
    const sent = this.drafts.get(at);
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } }).catch(() => null);
    const written = answer ? await answer.json() : {};
    if (!answer?.ok) return this.say(written.detail ?? "–");
    this.saved(at, written);
    if (this.drafts.get(at) !== sent) return; // the reader has written on meanwhile
    this.drafts.delete(at);
    if (at !== this.at) return;
    if (form.contains(document.activeElement)) form.querySelector("button").focus();
    form.elements.tags.value = written.tags.join(" ");
    form.elements.note.value = written.note;
    this.chips(written.tags);
    this.say(form.dataset.saved);
  }

  chips(tags) {
    const list = this.form.querySelector(".tags");
    list.replaceChildren(
      ...tags.map((tag) => {
        const chip = document.createElement("a");
        chip.className = "chip";
        chip.href = `${list.dataset.chip}?${new URLSearchParams({ tag })}`;
        chip.textContent = tag;
        return chip;
      }),
    );
  }

  say(text) {
    this.form.querySelector("[role=status]").textContent = text;
  }
}
