// Two runs, and the photographs on which their predictions differ. Each class is a letter: "a" is class 0.
const data = JSON.parse(document.getElementById("data").textContent), names = Object.keys(data.runs);
const PAGE = 60;  // photographs at once: thousands would make the page slow
if (names.length > 1) {
  const [first, second, kind, summary, photos, more] =
    ["first", "second", "kind", "summary", "photos", "more"].map((id) => document.getElementById(id));
  for (const [select, chosen] of [[first, 0], [second, 1]]) {
    select.append(...names.map((name) => new Option(name)));
    select.selectedIndex = chosen;
    select.addEventListener("change", compare);
  }
  kind.addEventListener("change", compare);
  more.addEventListener("click", showMore);
  let differing = [], shown = 0;

  function compare() {
    const [a, b] = [data.runs[first.value], data.runs[second.value]];
    const count = {both: 0, first: 0, second: 0, neither: 0};
    differing = [];
    for (let i = 0; i < data.truth.length; i++) {
      const [isRightA, isRightB] = [a[i] === data.truth[i], b[i] === data.truth[i]];
      const right = isRightA && isRightB ? "both" : isRightA ? "first" : isRightB ? "second" : "neither";
      count[right]++;
      if (a[i] !== b[i] && (kind.value === "all" || kind.value === right)) differing.push(i);
    }
    summary.textContent = `Both right: ${count.both}. Only ${first.value}: ${count.first}. Only ${second.value}: ` +
      `${count.second}. Neither: ${count.neither}. Shown below: ${differing.length} with different predictions.`;
    differing.sort((i, j) => (j in data.photos) - (i in data.photos));
    photos.replaceChildren();
    shown = 0;
    showMore();
  }

  function showMore() {
    photos.append(...differing.slice(shown, shown + PAGE).map(card));
    shown = Math.min(shown + PAGE, differing.length);
    more.hidden = shown >= differing.length;
  }

  function card(i) {
    const item = document.createElement("li"), truth = data.truth[i];
    if (data.photos[i]) {
      const image = document.createElement("img");
      image.src = data.photos[i];
      image.alt = data.images[i];
      item.append(image);
    }
    const addLine = (text, style) => {
      const line = document.createElement("p");
      line.textContent = text;
      line.className = style;
      item.append(line);
    };
    const className = (letter) => data.classes[letter.charCodeAt(0) - 97];
    for (const run of [first.value, second.value]) {
      const predicted = data.runs[run][i];
      addLine(`${run}: ${className(predicted)}`, predicted === truth ? "" : "highlight");
    }
    addLine(`true: ${className(truth)}`, "");
    addLine(data.images[i], "soft");
    if (!data.photos[i]) addLine(i in data.photos ? "cannot be read" : data.missing, "soft");
    return item;
  }

  compare();
}
