// Keeps what the server rendered fresh: parts with data-live are fetched anew when a topic says
// that something changed, and only what is different is changed. `edgewake:fresh` is dispatched on
// the document after that; `edgewake:gone` instead, if there is no such page any more.
//
//   import { keepFresh } from "./fresh.js";
//   keepFresh("status", "event");
//
//   <tbody id="services" data-live> … <tr data-key="{{ service.name }}">

import { morph } from "./dom.js";
import { localTimes } from "./format.js";
import { on } from "./live.js";
import { labelCells } from "./tables.js";

const PAUSE_MS = 400; // at least, between two times

let busy = false;
let again = false;

// Fetches this page and updates its live parts; calls during that lead to one more time.
export async function refresh() {
  if (busy || document.hidden) {
    again = true;
    return;
  }
  busy = true;
  again = false;
  try {
    await update();
  } catch {
    // the header says that we are not connected; the next message tries again
  }
  setTimeout(() => {
    busy = false;
    if (again) refresh();
  }, PAUSE_MS);
}

async function update() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-cache" });
  if (answer.status === 404) document.dispatchEvent(new CustomEvent("edgewake:gone"));
  if (!answer.ok || answer.redirected) return;
  show(await answer.text());
}

// Updates the live parts of this page to those of a page as text.
export function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  localTimes(page);
  labelCells(page);
  for (const part of document.querySelectorAll("[data-live][id]")) {
    const fresh = page.getElementById(part.id);
    if (fresh) morph(part, document.adoptNode(fresh));
  }
  document.dispatchEvent(new CustomEvent("edgewake:fresh"));
}

export function keepFresh(...topics) {
  for (const topic of new Set([...topics, "gap"])) on(topic, refresh);
  document.addEventListener("edgewake:done", refresh);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && again) refresh();
});
