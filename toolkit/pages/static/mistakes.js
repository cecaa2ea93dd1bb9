// A click on a cell of a confusion matrix shows its photographs and hides the others.
const filter = document.getElementById("filter"), photographs = [...document.querySelectorAll("[data-cells]")];
function showCell(cell, text) {
  for (const one of photographs) one.hidden = cell !== null && !one.dataset.cells.split(" ").includes(cell);
  for (const person of document.querySelectorAll(".person")) person.hidden = !person.querySelector("li:not([hidden])");
  filter.hidden = cell === null;
  filter.querySelector("span").textContent = `${text}: ${photographs.filter((one) => !one.hidden).length} shown.`;
}
for (const link of document.querySelectorAll("a[data-cell]")) {
  link.addEventListener("click", () => {
    const cell = link.closest("td"), row = cell.closest("tr");
    const predicted = cell.closest(".matrix") ? columnName(cell) : row.cells[1].textContent;
    showCell(link.dataset.cell, `Only ${row.cells[0].textContent}, predicted as ${predicted}`);
  });
}
filter?.querySelector("button").addEventListener("click", () => showCell(null, ""));
