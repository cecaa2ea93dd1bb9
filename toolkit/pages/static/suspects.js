// One row for each suspect. A row is filled when it comes near the window: thousands of full rows make a page slow.
const data = JSON.parse(document.getElementById("data").textContent), suspects = data.suspects;
const isServed = "list_hash" in data;
const [progress, status, errorLine, undoButton, template] =
  ["progress", "status", "error", "undo", "row"].map((id) => document.getElementById(id));
const rows = [...document.getElementById("list").children], numbers = new Map(rows.map((row, i) => [row, i]));
const ANSWER_TEXTS = {y: "Yes: the suspicion is right", n: "No: the folder is right", "?": "Cannot tell"};
const answers = suspects.map(() => null);  // as the page shows them: saved, or being saved
const saved = suspects.map(() => null);  // as they are on the server's disk or in the browser's storage
const undoable = [];  // decisions that can be undone: [row, answer before]
let current = 0, isReady = false;

// The select shows the suspects of one kind of evidence; keys then pass over the others.
const kind = document.getElementById("kind");
function showKind() {
  rows.forEach((row, i) => row.hidden = Boolean(kind.value) && !suspects[i].kinds.includes(kind.value));
  let i = rows[current].hidden ? rows.findIndex((row, i) => !row.hidden && !answers[i]) : current;
  if (i < 0) i = rows.findIndex((row) => !row.hidden);
  goTo(i, !isByKey);
}
let isByKey = false;  // arrow keys go through the kinds: the focus stays in the select
kind?.addEventListener("keydown", () => isByKey = true);
kind?.addEventListener("pointerdown", () => isByKey = false);
kind?.addEventListener("change", showKind);

function neighbour(i, step) {
  do i += step; while (rows[i]?.hidden);
  return i;
}

const nearRows = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) fillRow(numbers.get(entry.target));
}, {rootMargin: "100% 0px"});

function fillRow(i) {
  const row = rows[i], suspect = suspects[i];
  if (row.dataset.filled) return;
  row.dataset.filled = true;
  nearRows.unobserve(row);
  const content = template.content.cloneNode(true), part = (name) => content.querySelector(name);
  part(".label").textContent = suspect.label;
  part(".suggestion").textContent = suspect.suggestion;
  part(".evidence").textContent = suspect.evidence;
  const percent = Math.round(100 * suspect.probability);
  part(".probability").textContent =
    `${percent > 99 ? "over 99" : percent < 1 ? "under 1" : percent} % that a label is wrong`;
  const images = suspect.captions.map((caption, cell, all) => {
    const item = document.createElement("li"), image = document.createElement("img"), below = document.createElement("p");
    image.alt = `Photograph ${cell + 1}: ${caption}`;
    image.decoding = "async";
    // All photographs of a suspect are one picture; each image shows its own cell of it.
    image.style.objectPosition = `${all.length > 1 ? 100 * cell / (all.length - 1) : 0}% 0`;
    below.textContent = caption;
    item.append(image, below);
    part(".cells").append(item);
    return image;
  });
  row.append(content);
  updateRow(i);
  loadPicture(i, images);
}

// From the server, or from the end of this page, which the browser may not have loaded yet.
function loadPicture(i, images) {
  const source = isServed ? `photographs/${i}.jpg` : document.getElementById(`p${i}`)?.textContent;
  if (source) for (const image of images) image.src = source;
  else if (document.readyState === "loading") setTimeout(loadPicture, 30, i, images);
}

function updateRow(i) {
  const row = rows[i], answer = answers[i];
  if (answer) row.dataset.answer = answer;
  else delete row.dataset.answer;
  if (!row.dataset.filled) return;
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.answer === answer);
  }
  row.querySelector(".answer").textContent =
    answer === saved[i] ? ANSWER_TEXTS[answer] ?? "" : answer ? `${ANSWER_TEXTS[answer]} (saving)` : "(undoing)";
}

function updateStatus() {
  const count = (answer) => saved.filter((one) => one === answer).length, open = count(null);
  const expected = suspects.reduce((sum, one, i) => sum + (saved[i] ? 0 : one.probability), 0);
  const format = (value, digits = 0) =>
    value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  status.textContent = `${format(suspects.length - open)} of ${format(suspects.length)} decided: ` +
    `${count("y")} yes, ${count("n")} no, ${count("?")} ?; ` +
    `expected errors among those not yet decided: ${format(expected, 1)}`;
  undoButton.disabled = !undoable.length;
}

function showError(text) {
  errorLine.textContent = text;
  errorLine.hidden = !text;
}

// Keys decide on the current row.
function setCurrent(i) {
  rows[current].removeAttribute("aria-current");
  rows[current = i].setAttribute("aria-current", "true");
}

// Scrolls the row to the same place each time, so that the eye need not search.
function goTo(i, takesFocus = true) {
  if (!rows[i]) return;
  if (rows[i].hidden) {
    kind.value = "";
    rows.forEach((row) => row.hidden = false);
  }
  setCurrent(i);
  fillRow(i);
  rows[i].scrollIntoView();
  if (takesFocus) rows[i].focus({preventScroll: true});
}

function isSeen(i) {
  const {top, bottom} = rows[i].getBoundingClientRect(), above = Math.max(progress.getBoundingClientRect().bottom, 0);
  return Math.min(bottom, innerHeight) - Math.max(top, above) > Math.min(bottom - top, innerHeight - above) / 2;
}

function decide(i, answer, before = answers[i]) {
  if (answer !== before) {
    const decision = [i, before];
    undoable.push(decision);
    setAnswer(i, answer, decision);
  }
  let next = i;
  do next = (next + 1) % rows.length; while ((answers[next] || rows[next].hidden) && next !== i);
  goTo(next);
}

function undo() {
  if (!undoable.length) return;
  const [i, before] = undoable.pop();
  setAnswer(i, before);
  goTo(i);
}

// `decision` is the entry of undoable that this answer made; undoing makes none.
function setAnswer(i, answer, decision) {
  answers[i] = answer;
  (isServed ? sendToServer : storeInBrowser)(i, answer, decision);
  updateRow(i);
  updateStatus();
}

// Somebody has changed the file of decisions.
function takeAnswers(inFile) {
  rows.forEach((_, i) => {
    answers[i] = saved[i] = inFile[i] ?? null;
    updateRow(i);
  });
}

// The server writes decisions to the disk one after the other; only what it has written counts as saved.
const failed = new Set();  // rows whose last decision is not saved: the page says so until they are decided again
let sending = Promise.resolve();
function sendToServer(i, answer, decision) {
  sending = sending.then(async () => {
    try {
      const body = JSON.stringify({list_hash: data.list_hash, number: i, answer});
      const reply = await fetch("decisions", {method: "POST", headers: {"Content-Type": "application/json"}, body});
      const {error, found, answers: inFile} = await reply.json();
      if (!reply.ok) throw new Error(error);
      saved[i] = answer;
      failed.delete(i);
      if (!failed.size) showError(found ?? "");
      if (found) takeAnswers(inFile);
    } catch (error) {
      const why = error instanceof TypeError ? "nothing answers; is suspects.py still running?" : error.message;
      failed.add(i);
      showError(`Not saved: the last decision on ${[...failed].map((one) => suspects[one].folder).join(", ")}: ${why}`);
      if (undoable.includes(decision)) undoable.splice(undoable.indexOf(decision), 1);
    }
    answers[i] = saved[i];
    updateRow(i);
    updateStatus();
  });
}

// An entry for each folder: two windows do not overwrite each other's, and entries of pages with other suspects stay.
const storageKey = (i) => `${data.key}/${suspects[i].folder}`;
let isStorageUsable = true, isDownloaded = true;
function tryStorage(work) {
  try {
    return work();
  } catch {
    isStorageUsable = false;
    showError("This browser stores no decisions: save corrections.csv before you close this page.");
  }
}

function storeInBrowser(i, answer) {
  saved[i] = answer;
  isDownloaded = false;
  // The entry is the rows of the answer, not "y" or "n": a page with another suggestion must not take it for its own.
  // Empty means undone.
  tryStorage(() => localStorage.setItem(storageKey(i), answer ? data.lines[i][answer] : ""));
}

function readStorage() {
  const found = {};
  tryStorage(() => suspects.forEach((_, i) => {
    const text = localStorage.getItem(storageKey(i));
    if (text !== null) found[i] = Object.keys(ANSWER_TEXTS).find((answer) => data.lines[i][answer] === text);
  }));
  return Object.fromEntries(Object.entries(found).filter(([, answer]) => answer));
}

function download() {
  addSaved(readStorage());  // another window may have decided more
  const lines = data.lines.map((of, i) => of[saved[i]] ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data.head, ...lines], {type: "text/csv"}));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  document.getElementById("saved").textContent = `Saved. Move it to ${data.file}, then train, with your other settings: ${data.command}`;
  isDownloaded = true;
}

// A key counts as the letter that it writes or, where that is not Latin (Hangul, say), by its position.
const POSITIONS = {KeyY: "y", KeyN: "n", KeyU: "u", KeyJ: "j", KeyK: "k", KeyZ: "z"};
addEventListener("keydown", (event) => {
  if (!isReady || event.target.closest?.("input, select, textarea, [contenteditable]")) return;
  const key = /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : POSITIONS[event.code] ?? event.key;
  const isUndo = key === "z" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (!isUndo && (event.ctrlKey || event.altKey || event.metaKey)) return;
  const isFirst = !event.repeat;  // a key that is held down decides once
  if (key === "ArrowDown" || key === "j") goTo(neighbour(current, 1));
  else if (key === "ArrowUp" || key === "k") goTo(neighbour(current, -1));
  else if (key === "u" || isUndo) isFirst && undo();
  else if (!(key in ANSWER_TEXTS)) return;
  else if (!isSeen(current)) goTo(current);  // nobody decides on a row that is out of sight
  else if (isFirst) decide(current, key);
  event.preventDefault();
});

document.getElementById("list").addEventListener("click", (event) => {
  const button = event.target.closest("button"), row = event.target.closest("article"), i = numbers.get(row);
  if (!row || !isReady) return;
  setCurrent(i);
  if (button?.getAttribute("aria-pressed") === "true") {
    undoable.push([i, answers[i]]);
    setAnswer(i, null, undoable.at(-1));
  } else if (button) decide(i, button.dataset.answer);
});
undoButton.addEventListener("click", undo);
document.getElementById("save")?.addEventListener("click", download);

// When the current row is scrolled out of sight, the first row in sight becomes the current one.
addEventListener("scroll", () => requestAnimationFrame(() => {
  for (let y = 0; isReady && !isSeen(current) && y < innerHeight; y += 50) {
    const row = document.elementFromPoint(innerWidth / 2, y)?.closest("article");
    if (row && isSeen(numbers.get(row))) setCurrent(numbers.get(row));
  }
}));
new ResizeObserver(() => {
  document.documentElement.style.scrollPaddingTop = `${progress.offsetHeight}px`;  // rows stop below the sticky line
}).observe(progress);
addEventListener("beforeprint", () => rows.forEach((_, i) => fillRow(i)));
addEventListener("beforeunload", (event) => {
  if (!isStorageUsable && !isDownloaded) event.preventDefault();
});

// Adds {row: answer} from the server or the storage, where this page has no saved answer.
function addSaved(found) {
  for (const [i, answer] of Object.entries(found)) if (saved[i] === null) {
    answers[i] = saved[i] = answer;
    updateRow(i);
  }
  updateStatus();
}

function begin(found) {
  history.scrollRestoration = "manual";  // the page begins at the first open row, not where it was left
  addSaved(found);
  for (const row of rows) nearRows.observe(row);
  isReady = rows.length > 0;
  if (isReady) setCurrent(Math.max(answers.indexOf(null), 0));
  if (current) goTo(current);
}

if (isServed) {
  fetch("decisions").then((reply) => reply.json()).then(begin)
    .catch(() => showError("Decisions cannot be read: is suspects.py still running? Then reload this page."));
} else begin(readStorage());
