// Brings what is live on a page up to date, and shows what a point of a chart says.
"use strict";
const EVERY = 2000;
let tag = null;

function kept(element) {
  return new Set([...element.querySelectorAll("input:checked")].map((box) => box.value));
}

async function renew() {
  const headers = tag ? { "If-None-Match": tag } : {};
  const answer = await fetch(location.href, { headers, cache: "no-store" });
  if (answer.status !== 200) return;
  tag = answer.headers.get("ETag");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh || fresh.innerHTML === old.dataset.was) continue;
    const ticked = kept(old), focused = old.contains(document.activeElement) && document.activeElement.id;
    old.dataset.was = fresh.innerHTML;
    old.replaceChildren(...document.adoptNode(fresh).childNodes);
    for (const box of old.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.value);
    if (focused) document.getElementById(focused)?.focus();
  }
  document.title = page.title;
}

async function keepUp() {
  try {
    if (!document.hidden) await renew();
  } catch {
    tag = null; // the server has ended, or is not there yet: asked again
  }
  setTimeout(keepUp, EVERY);
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.addEventListener("pointerover", (event) => {
  const text = event.target.dataset?.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  if (!tip.isConnected) document.body.append(tip);
  const box = event.target.getBoundingClientRect(), width = document.documentElement.clientWidth;
  tip.style.top = `${window.scrollY + box.bottom + 6}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, width - tip.offsetWidth - 8))}px`;
});
if (document.querySelector("[data-live]")) setTimeout(keepUp, EVERY);
