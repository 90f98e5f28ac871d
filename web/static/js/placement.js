// The placement pages: forms that begin an operation and go to its page, which is kept fresh until
// it has ended; the changes of a plan on the graph; points of a front by click and arrow keys.

import { ask, explained, request, valuesOf } from "./actions.js";
import { keepFresh, refresh, show } from "./fresh.js";
import { Graph } from "./graph.js";
import { read } from "./graph-model.js";
import { withMoves } from "./graph-moves.js";
import { on } from "./live.js";

const POLL_MS = 1000; // of an operation that goes on, beside the live stream

const waits = () => document.getElementById("standing")?.dataset.waits;

for (const form of document.querySelectorAll("form[data-plan]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector('[type="submit"]');
    const told = form.querySelector(".plan-problem");
    button.setAttribute("aria-busy", "true");
    told.hidden = true;
    try {
      const { document: operation } = await request("POST", form.dataset.plan, valuesOf(form));
      location.assign(`${location.pathname}?of=${encodeURIComponent(operation.id)}`);
    } catch (problem) {
      told.replaceChildren(...explained(problem));
      told.hidden = false;
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
}

// An operation that has ended changes the page as a whole: it is loaded anew.
if (waits()) {
  const id = waits();
  const look = async () => {
    const operation = await ask("GET", `/operations/${encodeURIComponent(id)}`).catch(() => null);
    if (operation && operation.state !== "queued" && operation.state !== "running") location.reload();
    else refresh();
  };
  setInterval(look, POLL_MS);
  on("operation", (operation) => operation.id === id && look());
}
document.addEventListener("edgewake:done", ({ detail }) => {
  const applied = detail.path === "/plans" && detail.result?.operation;
  if (applied) location.assign(`/placement?of=${encodeURIComponent(applied)}`); // also from a front
});
keepFresh("operation");
setInterval(() => document.querySelector("#earlier :is(.s-running, .s-queued)") && refresh(), 2 * POLL_MS);

// --- on the graph ---------------------------------------------------------------------------------

const place = document.getElementById("graph");
let graph = null;
let lab = null;
let drawn = "";

// Draws moves, as JSON, unless they are drawn already.
function draw(moves) {
  if (!lab || !moves || moves === drawn) return;
  drawn = moves;
  const { model, marks } = withMoves(lab, JSON.parse(moves));
  graph.draw(read(model), { open: marks.open });
  graph.mark(marks);
}

// --- a front --------------------------------------------------------------------------------------

const chart = document.getElementById("front");

async function choose(link, keep) {
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return location.assign(link.href);
  history.replaceState(null, "", link.href);
  show(await answer.text());
  if (keep) chart.querySelector(`a.point[data-point="${link.dataset.point}"]`)?.focus();
  return undefined;
}
document.addEventListener("edgewake:fresh", () => draw(document.getElementById("diff")?.dataset.movesOf));

chart?.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-point]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose({ href: link.getAttribute("href"), dataset: link.dataset }, link.matches(".point"));
});
chart?.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  const here = event.target.closest("a.point");
  if (!way || !here) return;
  const points = [...chart.querySelectorAll("a.point")];
  const next = points[points.indexOf(here) + way];
  event.preventDefault();
  if (next) choose({ href: next.getAttribute("href"), dataset: next.dataset }, true);
});

if (place) {
  graph = new Graph(place);
  lab = await ask("GET", "/graph");
  draw(place.dataset.moves);
  graph.fit();
}
