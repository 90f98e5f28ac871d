// The journal: what happens appears at the top.

import { state } from "./dom.js";
import { localTimes } from "./format.js";
import { on } from "./live.js";
import { liveList } from "./live_list.js";

const AUDIT = "audit";
const blank = document.getElementById("blank").content.firstElementChild;
const words = JSON.parse(document.getElementById("words").textContent);
const trouble = new Set(words.trouble);

const fits = (event) =>
  event.kind !== AUDIT &&
  (!words.kind || event.kind === words.kind) &&
  event.subject.toLowerCase().includes(words.subject.toLowerCase()) &&
  (!words.only || trouble.has(event.kind));

function make(event) {
  const row = blank.cloneNode(true);
  const at = (name) => row.querySelector(`[data-f="${name}"]`);
  const time = at("at").querySelector("time");
  time.dataset.at = event.at;
  time.dateTime = new Date(event.at * 1000).toISOString();
  localTimes(row);
  row.classList.toggle("trouble", trouble.has(event.kind));
  at("kind").replaceChildren(trouble.has(event.kind) ? state("trouble", event.kind) : event.kind);
  at("subject").textContent = event.subject;
  at("text").textContent = event.text;
  return row;
}

const list = liveList({
  rows: document.getElementById("journal-rows"),
  make,
  most: words.most,
  button: document.getElementById("pause"),
  shown(number) {
    document.getElementById("none").hidden = number > 0;
    document.getElementById("some").hidden = number === 0;
  },
});

on("event", (event) => {
  if (fits(event)) list.add([event]);
});
on("gap", () => location.reload());
