// A row a suspect. What stands in it is made when it comes near the window: thousands of them would make the page slow.
const data = JSON.parse(document.getElementById("data").textContent), suspects = data.suspects;
const [progress, status, wrong, undoing, template] =
  ["progress", "status", "wrong", "undo", "row"].map((id) => document.getElementById(id));
const rows = [...document.getElementById("list").children], numbers = new Map(rows.map((row, i) => [row, i]));
const WORDS = {y: "Yes: the suggestion is right", n: "No: the folder is right", "?": "Cannot tell"};
const answers = suspects.map(() => null);  // what was decided, whether it is kept already or not
const kept = suspects.map(() => null);  // what is known to be kept
const done = [];  // decisions that can be taken back: which row, and its answer before
let current = 0, isReady = false;

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) fill(numbers.get(entry.target));
}, {rootMargin: "100% 0px"});

function fill(i) {
  const row = rows[i], suspect = suspects[i];
  if (row.dataset.filled) return;
  row.dataset.filled = true;
  near.unobserve(row);
  const parts = template.content.cloneNode(true), part = (name) => parts.querySelector(name);
  part(".says").textContent = suspect.says;
  part(".suggests").textContent = suspect.suggests;
  part(".why").textContent = suspect.why;
  const percent = Math.round(100 * suspect.probability);
  part(".chance").textContent = `${percent > 99 ? "over 99" : percent < 1 ? "under 1" : percent} % that a label is wrong`;
  const images = suspect.captions.map((caption, place, all) => {
    const item = document.createElement("li"), image = document.createElement("img"), below = document.createElement("p");
    image.alt = `Photograph ${place + 1}: ${caption}`;
    image.decoding = "async";
    image.style.objectPosition = `${all.length > 1 ? 100 * place / (all.length - 1) : 0}% 0`;  // its cell of the picture
    below.textContent = caption;
    item.append(image, below);
    part(".faces").append(item);
    return image;
  });
  row.append(parts);
  show(i);
  look(i, images);
}

// The picture of a row: of the server, or out of the page, whose end the browser may not have read yet.
function look(i, images) {
  const source = data.edition ? `photographs/${i}.jpg` : document.getElementById(`p${i}`)?.textContent;
  if (source) for (const image of images) image.src = source;
  else if (document.readyState === "loading") setTimeout(look, 30, i, images);
}

function show(i) {
  const row = rows[i], answer = answers[i];
  if (answer) row.dataset.answer = answer;
  else delete row.dataset.answer;
  if (!row.dataset.filled) return;
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.answer === answer);
  }
  row.querySelector(".answer").textContent =
    answer === kept[i] ? WORDS[answer] ?? "" : answer ? `${WORDS[answer]}, being kept` : "being taken back";
}

function count() {
  const of = (answer) => kept.filter((one) => one === answer).length, open = of(null);
  const expected = suspects.reduce((sum, one, i) => sum + (kept[i] ? 0 : one.probability), 0);
  const number = (value, minimumFractionDigits = 0) =>
    value.toLocaleString("en", {minimumFractionDigits, maximumFractionDigits: minimumFractionDigits});
  status.textContent = `${number(suspects.length - open)} of ${number(suspects.length)} decided: ${of("y")} yes, ` +
    `${of("n")} no, ${of("?")} ?; expected errors among those not yet decided: ${number(expected, 1)}`;
  undoing.disabled = !done.length;
}

function tell(text) {
  wrong.textContent = text;
  wrong.hidden = !text;
}

// The current row is where keys decide: it stands in the same place each time, so that the eye need not look for it.
function mark(i) {
  rows[current].removeAttribute("aria-current");
  rows[current = i].setAttribute("aria-current", "true");
}

function go(i) {
  if (!rows[i]) return;
  mark(i);
  fill(i);
  rows[i].scrollIntoView();
  rows[i].focus({preventScroll: true});
}

function isSeen(i) {
  const {top, bottom} = rows[i].getBoundingClientRect(), above = Math.max(progress.getBoundingClientRect().bottom, 0);
  return Math.min(bottom, innerHeight) - Math.max(top, above) > Math.min(bottom - top, innerHeight - above) / 2;
}

function decide(i, answer, before = answers[i]) {
  if (answer !== before) {
    const one = [i, before];
    done.push(one);
    keep(i, answer, one);
  }
  let next = i;
  do next = (next + 1) % rows.length; while (answers[next] && next !== i);
  go(next);
}

function undo() {
  if (!done.length) return;
  const [i, before] = done.pop();
  keep(i, before);
  go(i);
}

function keep(i, answer, one) {
  answers[i] = answer;
  (data.edition ? send : store)(i, answer, one);
  show(i);
  count();
}

// Served: the server writes each decision to the disk, one after the other, and only what it has written is kept.
const lost = new Set();  // rows whose last decision is not; the page says so until they are decided
let sending = Promise.resolve();
function send(i, answer, one) {
  sending = sending.then(async () => {
    try {
      const body = JSON.stringify({edition: data.edition, number: i, answer});
      const reply = await fetch("decisions", {method: "POST", headers: {"Content-Type": "application/json"}, body});
      if (!reply.ok) throw new Error((await reply.json()).error);
      kept[i] = answer;
      lost.delete(i);
      if (!lost.size) tell("");
    } catch (error) {
      const why = error instanceof TypeError ? "nothing answers; is suspects.py still running?" : error.message;
      lost.add(i);
      tell(`Not kept: the last decision on ${[...lost].map((one) => suspects[one].folder).join(", ")}: ${why}`);
      if (done.includes(one)) done.splice(done.indexOf(one), 1);
    }
    answers[i] = kept[i];
    show(i);
    count();
  });
}

// As a file: an entry a folder, so that two windows do not overwrite each other's, and other pages' entries stay.
const place = (i) => `${data.key}/${suspects[i].folder}`;
let isStored = true, isSaved = true;
function stored(work) {
  try {
    return work();
  } catch {
    isStored = false;
    tell("This browser keeps no decisions: save corrections.csv before you close this page.");
  }
}

function store(i, answer) {
  kept[i] = answer;
  isSaved = false;
  // What was decided is kept, not only how: a page that suggests something else was not agreed to. Empty is taken back.
  stored(() => localStorage.setItem(place(i), answer ? data.lines[i][answer] : ""));
}

function remembered() {
  const found = {};
  stored(() => suspects.forEach((_, i) => {
    const text = localStorage.getItem(place(i));
    if (text !== null) found[i] = Object.keys(WORDS).find((answer) => data.lines[i][answer] === text);
  }));
  return Object.fromEntries(Object.entries(found).filter(([, answer]) => answer));
}

function save() {
  take(remembered());  // and what another window has decided
  const lines = data.lines.map((of, i) => of[kept[i]] ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data.head, ...lines], {type: "text/csv"}));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  document.getElementById("saved").textContent = `Saved. Put it beside train.py, then: ${data.command}`;
  isSaved = true;
}

// Keys are told by what they write, or, where that is no Latin letter (Hangul, say), by where they are.
const PLACES = {KeyY: "y", KeyN: "n", KeyU: "u", KeyJ: "j", KeyK: "k", KeyZ: "z"};
addEventListener("keydown", (event) => {
  if (!isReady || event.target.closest?.("input, select, textarea, [contenteditable]")) return;
  const key = /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : PLACES[event.code] ?? event.key;
  const isUndo = key === "z" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (!isUndo && (event.ctrlKey || event.altKey || event.metaKey)) return;
  const isOnce = !event.repeat;  // a key that is held down too long decides once
  if (key === "ArrowDown" || key === "j") go(current + 1);
  else if (key === "ArrowUp" || key === "k") go(current - 1);
  else if (key === "u" || isUndo) isOnce && undo();
  else if (!(key in WORDS)) return;
  else if (!isSeen(current)) go(current);  // nobody decides on what is out of sight
  else if (isOnce) decide(current, key);
  event.preventDefault();
});

document.getElementById("list").addEventListener("click", (event) => {
  const button = event.target.closest("button"), row = event.target.closest("article"), i = numbers.get(row);
  if (!row || !isReady) return;
  mark(i);
  if (button?.getAttribute("aria-pressed") === "true") {
    done.push([i, answers[i]]);
    keep(i, null, done.at(-1));
  } else if (button) decide(i, button.dataset.answer);
});
undoing.addEventListener("click", undo);
document.getElementById("save")?.addEventListener("click", save);

// Who scrolls away from the current row means the first that is seen.
addEventListener("scroll", () => requestAnimationFrame(() => {
  for (let y = 0; isReady && !isSeen(current) && y < innerHeight; y += 50) {
    const row = document.elementFromPoint(innerWidth / 2, y)?.closest("article");
    if (row && isSeen(numbers.get(row))) mark(numbers.get(row));
  }
}));
new ResizeObserver(() => {
  document.documentElement.style.scrollPaddingTop = `${progress.offsetHeight}px`;
}).observe(progress);
addEventListener("beforeunload", (event) => {
  if (!isStored && !isSaved) event.preventDefault();
});

function take(before) {
  for (const [i, answer] of Object.entries(before)) if (kept[i] === null) {
    answers[i] = kept[i] = answer;
    show(i);
  }
  count();
}

function begin(before) {
  history.scrollRestoration = "manual";  // the place is that of the first that is open
  take(before);
  for (const row of rows) near.observe(row);
  isReady = rows.length > 0;
  if (isReady) mark(Math.max(answers.indexOf(null), 0));
  if (current) go(current);
}

if (data.edition) {
  fetch("decisions").then((reply) => reply.json()).then(begin)
    .catch(() => tell("What was decided cannot be read: is suspects.py still running? Then load this page anew."));
} else begin(remembered());
