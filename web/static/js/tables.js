// Tables whose rows become cards on a phone: each cell gets the name of its column, which CSS shows
// there before it; an empty cell gets none, and is not shown there. Lists with cards of their own
// (views.css) are left alone.

const TABLES = "table.data:not(#list, #wakes, #queries, #journal)";
const FEW = 2; // columns that fit on every phone

export function labelCells(root = document) {
  for (const table of root.querySelectorAll(TABLES)) {
    const columns = [...(table.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.textContent.trim());
    if (columns.length <= FEW) continue;
    table.classList.add("cards");
    for (const body of table.tBodies) {
      for (const row of body.rows) label(row.cells, columns);
    }
  }
}

function label(cells, columns) {
  let column = 0;
  for (const cell of cells) {
    const says = cell.firstElementChild || cell.textContent.trim();
    if (cell.localName === "td" && cell.colSpan === 1 && says) cell.dataset.label = columns[column] ?? "";
    column += cell.colSpan;
  }
}
