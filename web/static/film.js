// The film of a flight: a picture a frame, of which only those in view are there.

const AHEAD = 6; // pictures beyond either edge

export class Film {
  /** `list`: the server's list, whose first pictures are replaced once there are more than it holds. */
  constructor(list, flight, { caption, query, choose }) {
    Object.assign(this, { list, flight, caption, query });
    this.shown = new Map(); // place in the flight → its list item
    this.isDim = () => false;
    this.current = -1;
    if (!list) return;
    const items = [...list.children];
    this.virtual = flight.length > items.length;
    if (this.virtual) this.lay(items[0]);
    else items.forEach((item, at) => this.shown.set(at, item));
    const of = (event) => {
      const link = event.target.closest?.("[data-frame]");
      return link ? flight.place.get(Number(link.dataset.frame)) : undefined;
    };
    list.addEventListener("pointerover", (event) => this.note(of(event), choose));
    list.addEventListener("focusin", (event) => this.note(of(event), choose));
  }

  note(at, choose) {
    if (at === undefined || at === this.current) return;
    this.mark(at);
    choose(at);
  }

  lay(sample) {
    this.width = Math.round(sample.getBoundingClientRect().width) || 128;
    this.list.classList.add("virtual");
    this.list.replaceChildren();
    this.list.style.setProperty("--film-width", `${this.width * this.flight.length}px`);
    this.list.addEventListener("scroll", () => this.fill(), { passive: true });
    new ResizeObserver(() => this.fill()).observe(this.list);
    this.fill();
  }

  fill() {
    const first = Math.max(0, Math.floor(this.list.scrollLeft / this.width) - AHEAD);
    const last = Math.min(this.flight.length - 1, Math.ceil((this.list.scrollLeft + this.list.clientWidth) / this.width) + AHEAD);
    for (const [at, item] of this.shown)
      if ((at < first || at > last) && !item.contains(document.activeElement)) {
        item.remove();
        this.shown.delete(at);
      }
    for (let at = first; at <= last; at++) if (!this.shown.has(at)) this.add(at);
  }

  add(at) {
    const index = this.flight.index[at];
    const item = document.createElement("li");
    item.style.setProperty("--left", `${at * this.width}px`);
    const link = document.createElement("a");
    link.href = this.flight.frame_url.replace("{index}", index) + this.query;
    link.dataset.frame = index;
    link.classList.toggle("at", at === this.current);
    link.classList.toggle("beside", this.isDim(at));
    const image = new Image(128, 96);
    image.decoding = "async";
    image.alt = this.list.dataset.frame.replace("{n}", index);
    image.src = this.flight.image_url.replace("{index}", index);
    const line = document.createElement("span");
    line.className = "film-line";
    const number = document.createElement("b");
    number.textContent = index;
    line.append(number, this.facts(at));
    link.append(image, line);
    item.append(link);
    const after = [...this.shown.keys()].filter((other) => other > at).sort((a, b) => a - b)[0];
    this.list.insertBefore(item, after === undefined ? null : this.shown.get(after));
    this.shown.set(at, item);
  }

  facts(at) {
    const { sign, verdict, text } = this.caption(at);
    const facts = document.createElement("span");
    if (sign && sign !== "fix") facts.className = `fix-badge ${sign}`;
    if (sign === "fix") facts.append("◆ ");
    if (verdict) {
      const mark = document.createElement("i");
      mark.className = `verdict ${verdict}`;
      facts.append(mark, " ");
    }
    facts.append(text);
    return facts;
  }

  mark(at) {
    this.list?.querySelector("a.at")?.classList.remove("at");
    this.current = at;
    this.shown.get(at)?.querySelector("a").classList.add("at");
  }

  /** Bring a frame into view; `focus`: and the keyboard to it. */
  show(at, { focus = false, scroll = true } = {}) {
    if (!this.list) return;
    this.mark(at);
    if (this.virtual && scroll) {
      const middle = at * this.width - (this.list.clientWidth - this.width) / 2;
      this.list.scrollLeft = middle;
      this.fill();
      this.mark(at);
    }
    const link = this.shown.get(at)?.querySelector("a");
    if (focus) link?.focus({ preventScroll: this.virtual });
    else if (!this.virtual && scroll && link) {
      const item = link.parentElement;
      const [left, right] = [item.offsetLeft, item.offsetLeft + item.offsetWidth];
      if (left < this.list.scrollLeft || right > this.list.scrollLeft + this.list.clientWidth) this.list.scrollLeft = left - this.list.clientWidth / 2;
    }
  }

  /** Dim the frames for which `isDim(place)` holds. */
  dim(isDim) {
    this.isDim = isDim;
    for (const [at, item] of this.shown) item.querySelector("a").classList.toggle("beside", isDim(at));
  }
}
