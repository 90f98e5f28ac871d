// The DNS log: queries appear at the top as they are answered; the chart moves on each second.

import { h, state } from "./dom.js";
import { refresh } from "./fresh.js";
import { count, localTimes, milliseconds } from "./format.js";
import { on } from "./live.js";
import { liveList } from "./live_list.js";

const RATES_MS = 5000; // between two times at which rates are asked for
const [WIDTH, HEIGHT, GAP] = [1000, 100, 0.2]; // as in web/pages/drawing.py
const blank = document.getElementById("blank").content.firstElementChild;
const { symbols } = JSON.parse(document.getElementById("words").textContent);
const rows = document.getElementById("rows");
const chosen = rows.dataset;

const fits = (query) =>
  `${query.name} ${query.client}`.toLowerCase().includes(chosen.text.toLowerCase()) &&
  (!chosen.outcome || query.outcome === chosen.outcome) &&
  (!chosen.rcode || query.rcode === chosen.rcode);

function make(query) {
  const row = blank.cloneNode(true);
  const at = (name) => row.querySelector(`[data-f="${name}"]`);
  const time = at("at").querySelector("time");
  time.dataset.at = query.at;
  time.dateTime = new Date(query.at * 1000).toISOString();
  localTimes(row);
  for (const name of ["client", "name", "type"]) at(name).textContent = query[name];
  const answers = query.answers.join(", ");
  const told = answers && query.rcode !== "NOERROR" ? ` ${query.rcode}` : "";
  at("told").replaceChildren(h("span", { class: "mono" }, answers || query.rcode || "no reply"), told);
  at("took").textContent = milliseconds(query.latency_ms);
  at("outcome").replaceChildren(
    state(symbols[query.outcome] ?? "off", query.outcome),
    query.wake ? " " : "",
    query.wake ? h("a", { href: `/wakes/${query.wake}` }, `wake ${query.wake}`) : "",
    query.of > 1 ? h("span", { class: "muted" }, ` ×${query.of}`) : "",
  );
  return row;
}

const list = liveList({
  rows,
  make,
  most: Number(chosen.most),
  button: document.getElementById("pause"),
  shown(number) {
    document.getElementById("none").hidden = number > 0;
    document.getElementById("some").hidden = number === 0;
  },
});

// --- the last minute ---

const chart = document.getElementById("chart");
const length = Number(chart.dataset.seconds);
const perSecond = new Map();

function draw() {
  const now = Math.floor(Date.now() / 1000);
  for (const second of perSecond.keys()) if (second <= now - length) perSecond.delete(second);
  if (!perSecond.size) return;
  const values = Array.from({ length }, (_, index) => perSecond.get(now - length + 1 + index) ?? 0);
  const most = Math.max(...values, 1);
  const room = WIDTH / length;
  const svg = chart.querySelector("svg");
  svg.replaceChildren(...values.map((value, index) => h("rect", {
    x: (index * room).toFixed(2),
    y: (HEIGHT * (1 - value / most)).toFixed(2),
    width: (room * (1 - GAP)).toFixed(2),
    height: ((HEIGHT * value) / most).toFixed(2),
  })));
  document.getElementById("chart-said").textContent = `A column for each second; the highest is ${count(most)} queries.`;
}

on("queries", (queries) => {
  for (const query of queries) {
    const second = Math.floor(query.at);
    perSecond.set(second, (perSecond.get(second) ?? 0) + query.of);
  }
  list.add(queries.filter(fits).sort((one, other) => one.at - other.at));
});
on("gap", () => location.reload());
setInterval(draw, 1000);
setInterval(refresh, RATES_MS);
