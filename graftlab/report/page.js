// Sorts tables, shows what a point or a cell says, makes tabs of parts, and changes between light and dark.
"use strict";

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0];
  const column = [...head.parentNode.children].indexOf(head);
  const falls = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column], value = cell.dataset.value;
    return value === undefined ? (cell.textContent.trim() || null) : Number(value);
  };
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([one], [two]) => {
    if (one === null || two === null) return (one === null) - (two === null);
    const apart = typeof one === "number" && typeof two === "number"
      ? one - two : String(one).localeCompare(String(two), undefined, { numeric: true });
    return falls ? -apart : apart;
  });
  body.append(...rows.map(([, row]) => row));
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(head); }
  });
}

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
function show(event) {
  const from = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = !from;
  if (!from) return;
  tip.textContent = from.dataset.tip;
  const box = from.getBoundingClientRect(), room = document.documentElement.clientWidth;
  tip.style.top = `${window.scrollY + box.bottom + 6}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, room - tip.offsetWidth - 8))}px`;
}
for (const kind of ["pointerover", "click", "focusin"]) document.addEventListener(kind, show);

for (const section of document.querySelectorAll("section")) {
  const parts = [...section.querySelectorAll(":scope > .tab")];
  if (parts.length < 2) continue;
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  const choose = (chosen) => {
    parts.forEach((part, place) => { part.hidden = place !== chosen; });
    [...list.children].forEach((tab, place) => {
      tab.setAttribute("aria-selected", String(place === chosen));
      tab.tabIndex = place === chosen ? 0 : -1;
    });
  };
  parts.forEach((part, place) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.textContent = part.dataset.tab;
    part.setAttribute("role", "tabpanel");
    tab.addEventListener("click", () => choose(place));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (place + step + parts.length) % parts.length;
      choose(next);
      list.children[next].focus();
    });
    list.append(tab);
  });
  parts[0].before(list);
  choose(0);
}

const theme = document.createElement("button");
theme.type = "button";
theme.className = "theme";
const isDark = () => document.documentElement.classList.contains("dark") ||
  (!document.documentElement.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  const dark = !isDark();
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
  name();
});
name();
document.body.prepend(theme);
