// The navigation has a link to each section; printing shows closed parts, too.
for (const heading of document.querySelectorAll("main h2[id]")) {
  const item = document.createElement("li"), link = document.createElement("a");
  link.href = "#" + heading.id;
  link.textContent = heading.textContent;
  item.append(link);
  document.getElementById("parts").append(item);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => part.open = true));
