// Sorting: the head of a column sorts by it, the largest first; once more turns it round.
const table = document.getElementById("table"), heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") !== "descending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], [n, m] = [parseFloat(x), parseFloat(y)];
    return (isNaN(n) || isNaN(m) ? x.localeCompare(y) : n - m) * (down ? -1 : 1);
  });
  table.tBodies[0].append(...rows);
}));

// Two runs: what each said of the photographs over which they differ.
const data = JSON.parse(document.getElementById("data").textContent), names = Object.keys(data.runs);
const PAGE = 60;  // photographs at once: thousands would make the page slow
if (names.length > 1) {
  const [first, second, kind, summary, photos, more] =
    ["first", "second", "kind", "summary", "photos", "more"].map((id) => document.getElementById(id));
  for (const [select, chosen] of [[first, 0], [second, 1]]) {
    select.append(...names.map((name) => new Option(name)));
    select.selectedIndex = chosen;
    select.addEventListener("change", begin);
  }
  kind.addEventListener("change", begin);
  more.addEventListener("click", show);
  let found = [], shown = 0;

  function begin() {
    const [a, b] = [data.runs[first.value], data.runs[second.value]];
    const count = {both: 0, first: 0, second: 0, neither: 0};
    found = [];
    for (let i = 0; i < data.truth.length; i++) {
      const [x, y] = [a[i] === data.truth[i], b[i] === data.truth[i]];
      const which = x ? (y ? "both" : "first") : (y ? "second" : "neither");
      count[which]++;
      if (a[i] !== b[i] && (kind.value === "all" || kind.value === which)) found.push(i);
    }
    summary.textContent = `Both right: ${count.both}. Only ${first.value}: ${count.first}. ` +
      `Only ${second.value}: ${count.second}. Neither: ${count.neither}. Shown below: ${found.length} with other answers.`;
    found.sort((i, j) => (j in data.photos) - (i in data.photos));
    photos.replaceChildren();
    shown = 0;
    show();
  }

  function show() {
    photos.append(...found.slice(shown, shown + PAGE).map(card));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
  }

  function card(i) {
    const item = document.createElement("li"), truth = data.truth[i];
    if (i in data.photos) {
      const image = document.createElement("img");
      image.src = data.photos[i];
      image.alt = data.images[i];
      item.append(image);
    }
    const line = (text, style) => {
      const part = document.createElement("p");
      part.textContent = text;
      part.className = style;
      item.append(part);
    };
    for (const run of [first.value, second.value]) {
      const said = data.runs[run][i];
      line(`${run}: ${data.classes[said.charCodeAt(0) - 97]}`, said === truth ? "" : "said");
    }
    line(`is ${data.classes[truth.charCodeAt(0) - 97]}`, "");
    line(data.images[i], "soft");
    return item;
  }

  begin();
}
