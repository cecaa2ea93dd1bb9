// A click on a column's header sorts the table by it, the largest first; a second click reverses the order.
const table = document.getElementById("table"), headers = [...table.tHead.rows[0].cells];
headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
  const isDescending = header.getAttribute("aria-sort") !== "descending";
  headers.forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  const value = (row) => row.cells[column].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], [n, m] = [x || NaN, y || NaN].map(Number);
    return (isNaN(n) || isNaN(m) ? x.localeCompare(y) : n - m) * (isDescending ? -1 : 1);
  });
  table.tBodies[0].append(...rows);
}));
