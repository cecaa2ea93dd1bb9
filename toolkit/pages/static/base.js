// The navigation has a link to each section; printing shows closed parts, too.
for (const heading of document.querySelectorAll("main h2[id]")) {
  const item = document.createElement("li"), link = document.createElement("a");
  link.href = "#" + heading.id;
  link.textContent = heading.textContent;
  item.append(link);
  document.getElementById("parts").append(item);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => part.open = true));

// A table that is wider than the page becomes a list, whose lines name their columns.
const columnName = (cell) => {
  const head = cell.closest("table").tHead.rows[0].cells[cell.cellIndex];
  return head.title || head.textContent;
};
const tables = [...document.querySelectorAll(".scroll > table")].filter((table) => table.tHead);
for (const table of tables) for (const cell of table.querySelectorAll("tbody td")) cell.dataset.column = columnName(cell);
function fitTables() {
  for (const table of tables) {
    table.classList.remove("list");
    const isCompared = table.id === "table" && innerWidth >= 960;  // runs are compared by column, so on a wide window it scrolls
    table.classList.toggle("list", !isCompared && table.scrollWidth > table.parentElement.clientWidth);
  }
}
addEventListener("resize", fitTables);
for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", fitTables);
fitTables();
