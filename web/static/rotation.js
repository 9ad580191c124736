// The polar plot and its dial: the tile turns, the hand goes round, the readings follow.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const shape = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  shape.append(...children);
  return shape;
}

const COLOURS = 6;
const SHAPES = ["", "6 2", "2 1.5", "7 2 1.5 2", "4 1", "1 1"];
const holder = document.querySelector(".polar");
const dial = document.querySelector(".dial input");
const R = 100;

const value = (points, turn) => {
  const known = points.filter(([, y]) => y !== null);
  if (!known.length) return null;
  const around = (x) => Math.min(Math.abs(x - turn), 360 - Math.abs(x - turn));
  return known.reduce((best, point) => (around(point[0]) < around(best[0]) ? point : best))[1];
};

function draw(curves, curve) {
  const same = curves[curve] ?? {};
  const other = curves[{ cosine: "cosine_other", patch_aligned: "patch_other" }[curve]] ?? {};
  const all = [...Object.values(same), ...Object.values(other)].flat().map(([, y]) => y).filter((y) => y !== null);
  const floor = Math.floor(Math.min(...all, 0.95) * 20 - 0.5) / 20;
  const at = (turn, y) => {
    const r = (R * (y - floor)) / (1 - floor);
    const angle = ((turn - 90) * Math.PI) / 180;
    return `${(r * Math.cos(angle)).toFixed(2)} ${(r * Math.sin(angle)).toFixed(2)}`;
  };
  const ring = (points) => `M${points.filter(([, y]) => y !== null).map(([x, y]) => at(x, y)).join("L")}Z`;
  const svg = element("svg", { viewBox: "-122 -118 244 236", role: "img", "aria-label": holder.dataset.label });
  for (let i = 0; i <= 4; i++) {
    const level = floor + ((1 - floor) * i) / 4;
    svg.append(element("circle", { class: "ring", r: (R * i) / 4 }));
    if (i) svg.append(text(level.toFixed(2), 2, -(R * i) / 4 + 8, "level"));
  }
  for (let turn = 0; turn < 360; turn += 45) {
    svg.append(element("path", { class: "ring", d: `M0 0L${at(turn, 1)}` }));
    const [x, y] = at(turn, 1 + 0.09 * (1 - floor)).split(" ").map(Number);
    svg.append(text(`${turn}°`, x, y + 3, "turn"));
  }
  Object.entries(same).forEach(([name, points], i) => {
    if (other[name]) svg.append(element("path", { class: `other s${i % COLOURS}`, d: ring(other[name]) }));
    svg.append(element("path", { class: `same s${i % COLOURS}`, d: ring(points), "stroke-dasharray": SHAPES[i % SHAPES.length] }));
  });
  svg.append(element("path", { class: "hand", d: `M0 0V${-R - 4}` }));
  holder.replaceChildren(svg);
  const rows = Object.entries(same).map(([name], i) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const key = element("svg", { viewBox: "0 0 24 6", width: 24, height: 6, "aria-hidden": "true" }, element("path", { class: `same s${i % COLOURS}`, d: "M0 3H24", "stroke-dasharray": SHAPES[i % SHAPES.length] }));
    head.append(key, ` ${name}`);
    row.append(head, document.createElement("td"), document.createElement("td"));
    return row;
  });
  document.querySelector(".readings tbody").replaceChildren(...rows);
  const read = () => {
    const turn = Number(dial.value);
    document.querySelector(".dial output").textContent = `${turn}°`;
    const tile = document.querySelector(".turned");
    if (tile) tile.style.transform = `rotate(${-turn}deg)`;
    document.querySelector(".needle path").setAttribute("transform", `rotate(${-turn})`);
    svg.querySelector(".hand").setAttribute("transform", `rotate(${turn})`);
    Object.keys(same).forEach((name, i) => {
      const [mine, theirs] = rows[i].querySelectorAll("td");
      mine.textContent = value(same[name], turn)?.toFixed(3) ?? "–";
      theirs.textContent = (other[name] && value(other[name], turn)?.toFixed(3)) ?? "–";
    });
  };
  dial.oninput = read;
  read();
}

function text(words, x, y, name) {
  const made = element("text", { x, y, class: name });
  made.textContent = words;
  return made;
}

if (holder) {
  const answer = await fetch(document.querySelector("link[rel=alternate]").href);
  const { curves } = await answer.json();
  const chosen = () => document.querySelector("#tokens input:checked")?.value ?? "cosine";
  document.getElementById("tokens").addEventListener("change", () => draw(curves, chosen()));
  draw(curves, chosen());
}
