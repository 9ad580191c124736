// Tables whose rows are put in the order of a column: its head becomes a button.

for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, heads, column));
    head.append(button);
  });
}

function sort(table, heads, column) {
  const falling = heads[column].getAttribute("aria-sort") === "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((a, b) => compare(a.value, b.value) * (falling && a.value !== null && b.value !== null ? -1 : 1));
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

/** The number that a cell begins with, in the unit that it names, else its text; null for none, which comes last. */
function valueOf(row, column) {
  const text = cellAt(row, column)?.textContent.trim() ?? "";
  const number = /^([\d.,]+)\s*(km|m|ms|s|%)?/.exec(text);
  if (number && column) return Number(number[1].replaceAll(",", "")) * ({ km: 1000, s: 1000 }[number[2]] ?? 1);
  return /[\p{L}\d]/u.test(text) && !column ? text : null;
}

/** The cell under a column's head: cells may span several. */
function cellAt(row, column) {
  let at = 0;
  for (const cell of row.cells) {
    at += cell.colSpan;
    if (column < at) return cell;
  }
  return null;
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}
