// Each photograph is a request of its own, as programs send them; its answer becomes a row, the newest first.
const {classes} = JSON.parse(document.getElementById("data").textContent);
const [drop, input, status, list, template] =
  ["drop", "file", "status", "list", "row"].map((id) => document.getElementById(id));
const NAMES = {mask: "Mask", gender: "Gender", age: "Age", class: "Class"};
const SHOWN = 3;  // classes
let asked = 0, answered = 0;

function updateStatus() {
  status.textContent = asked === answered ? `${answered} answered` : `${answered} of ${asked} answered`;
}

async function ask(file) {
  asked += 1;
  updateStatus();
  const row = template.content.cloneNode(true).firstElementChild;
  row.querySelector("h3").textContent = file.name;
  list.prepend(row);
  try {
    // Systems that do not know a format, HEIC say, give it no type: the server looks into the file.
    const type = file.type.startsWith("image/") ? file.type : "application/x-image";
    const answer = await fetch("invocations", {method: "POST", headers: {"Content-Type": type}, body: file});
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    show(row, file, content.predictions[0]);
  } catch (error) {
    const why = error instanceof TypeError ? "nothing answers; is serve.py still running?" : error.message;
    row.querySelector(".highlight").textContent = why;
    for (const part of row.querySelectorAll("img, dl, table")) part.remove();
  }
  answered += 1;
  updateStatus();
}

function show(row, file, found) {
  const image = row.querySelector("img"), address = URL.createObjectURL(file);
  image.alt = `The photograph ${file.name}`;
  image.onload = () => URL.revokeObjectURL(address);
  image.onerror = () => image.remove();  // a format that the server knows, and this browser does not
  image.src = address;
  row.querySelector(".highlight").remove();
  for (const [key, name] of Object.entries(NAMES)) {
    const part = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = String(found[key]).replaceAll("_", " ");
    part.append(dt, dd);
    row.querySelector("dl").append(part);
  }
  const order = classes.map((_, number) => number).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  // The answer is not always the most probable class: it must not look as if the table contradicted it.
  for (const number of order.filter((number, rank) => rank < SHOWN || number === found.class)) {
    const line = row.querySelector("tbody").insertRow(), name = document.createElement("th");
    name.scope = "row";
    name.textContent = classes[number] + (number === found.class ? " (the answer)" : "");
    line.append(name);
    line.insertCell().textContent = `${(100 * found.probabilities[number]).toFixed(1)} %`;
  }
}

function askAll(files) {
  for (const file of files) ask(file);
}

input.addEventListener("change", () => {
  askAll([...input.files]);
  input.value = "";  // the same photograph may be chosen again
});
for (const name of ["dragover", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();  // else the browser would open the file in place of this page
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") askAll([...event.dataTransfer.files]);
  });
}
addEventListener("dragleave", () => drop.classList.remove("over"));
