// The list of wakes: those that begin appear at the top, those under way grow.

import { h, state } from "./dom.js";
import { owners } from "./drawings.js";
import { refresh } from "./fresh.js";
import { localTimes, seconds } from "./format.js";
import { on } from "./live.js";
import { liveList } from "./live_list.js";

const REST_MS = 2000; // between two times at which counts and percentiles are asked for
const rows = document.getElementById("rows");
const blank = document.getElementById("blank").content.firstElementChild;
const { stages, reasons } = JSON.parse(document.getElementById("words").textContent);
const chosen = rows.dataset;

const kindOf = (wake) => {
  if (wake.outcome === "waking") return "waking";
  return wake.outcome === "ready" ? wake.rung || "warm" : "failed";
};
const fits = (wake) =>
  (!chosen.service || wake.service === chosen.service) &&
  (!chosen.host || wake.host === chosen.host) &&
  (!chosen.outcome || kindOf(wake) === chosen.outcome);

function link(element, href, text) {
  element.textContent = text;
  element.setAttribute("href", href);
}

function outcome(wake, kind) {
  if (kind === "waking") return [state("waking")];
  if (kind === "failed") return [state("failed", wake.outcome), h("div", { class: "why" }, wake.text || reasons[wake.outcome] || "")];
  return [state("ready"), " ", h("span", { class: "muted" }, kind === "warm" ? "was warm" : `from ${kind}`)];
}

function make(wake) {
  const row = blank.cloneNode(true);
  const at = (name) => row.querySelector(`[data-f="${name}"]`);
  const kind = kindOf(wake);
  row.dataset.wake = wake.id;
  row.dataset.kind = kind;
  link(at("id"), `/wakes/${wake.id}`, wake.id);
  link(at("service"), `/services/${encodeURIComponent(wake.service)}`, wake.service);
  const time = at("when").querySelector("time");
  time.dataset.at = wake.started_at;
  time.dateTime = new Date(wake.started_at * 1000).toISOString();
  localTimes(row);
  at("outcome").replaceChildren(...outcome(wake, kind));
  at("host").replaceChildren(wake.host ? h("a", { href: `/hosts/${encodeURIComponent(wake.host)}` }, wake.host) : "–");
  at("took").textContent = seconds(wake.total_s);
  at("owners").replaceChildren(owners(wake.stamps, stages));
  at("by").replaceChildren(wake.by, wake.queries > 1 ? h("span", { class: "muted" }, ` ×${wake.queries}`) : "");
  return row;
}

const list = liveList({
  rows,
  make,
  most: Number(chosen.most),
  key: (wake) => wake.id,
  attribute: "data-wake",
  button: document.getElementById("pause"),
  shown(number) {
    document.getElementById("none").hidden = number > 0;
    document.getElementById("some").hidden = number === 0;
  },
});

let resting = false;
function count() {
  if (resting) return;
  resting = true;
  setTimeout(() => {
    resting = false;
    refresh();
  }, REST_MS);
}

on("wake", (wake) => {
  if (fits(wake)) list.add([wake]);
  if (wake.outcome !== "waking") count();
});
on("gap", () => location.reload());
