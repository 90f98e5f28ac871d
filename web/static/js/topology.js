// The start page: the graph, kept fresh by the live stream, its search, and the panel beside it.

import { ask, Problem, toast } from "./actions.js";
import { morphChildren } from "./dom.js";
import { keepFresh } from "./fresh.js";
import { Graph } from "./graph.js";
import { read } from "./graph-model.js";
import { detailsOf } from "./graph-panel.js";
import { on } from "./live.js";

const PAUSE_MS = 300; // at least, between two looks at the graph

const $ = (id) => document.getElementById(id);
let model = null;
let chosen = "";
let busy = false;
let again = false;

const graph = new Graph($("graph"), { chosen: choose });

// Shows the details of what is selected; of the same thing as before, only what differs changes.
function choose(id) {
  const same = id === chosen;
  chosen = id;
  const detail = $("detail");
  const fresh = detail.cloneNode(false);
  fresh.removeAttribute("data-keep");
  fresh.replaceChildren(...(id && model ? detailsOf(model, id, { select: (other) => graph.select(other), toggle: () => graph.toggle(id), open: graph.isOpen.bind(graph), close: () => graph.cy.$(":selected").unselect() }) : []));
  if (same) morphChildren(detail, fresh);
  else detail.replaceChildren(...fresh.childNodes);
}

async function load() {
  if (busy || document.hidden) {
    again = true;
    return;
  }
  busy = true;
  again = false;
  try {
    model = read(await ask("GET", "/graph"));
    graph.draw(model);
    $("toggle-sites").hidden = ![...model.groups.values()].some((group) => group.site);
    if (chosen) choose(chosen);
  } catch (problem) {
    if (!model) toast("The graph").fail(problem instanceof Problem ? problem : new Problem({ detail: String(problem) }), "The graph cannot be drawn");
  }
  setTimeout(() => {
    busy = false;
    if (again) load();
  }, PAUSE_MS);
}

function show(tables) {
  $("as-graph").setAttribute("aria-pressed", String(!tables));
  $("as-tables").setAttribute("aria-pressed", String(tables));
  $("graph-page").hidden = tables;
  $("tables").hidden = !tables;
  for (const part of document.querySelectorAll(".graph-view, #search, #found")) part.hidden = tables;
  history.replaceState(null, "", tables ? "#tables" : location.pathname);
  if (!tables) graph.cy.resize();
}

function search() {
  const words = $("search").value.trim();
  if (!model) return;
  const found = graph.search(words);
  $("found").textContent = words ? `${found.length || "nothing"} found` : "";
}

$("graph-tools").hidden = false;
$("as-graph").addEventListener("click", () => show(false));
$("as-tables").addEventListener("click", () => show(true));
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !model) return;
  const [first] = graph.search($("search").value.trim());
  if (first) graph.select(first);
});
$("zoom-in").addEventListener("click", () => graph.zoom(1.3));
$("zoom-out").addEventListener("click", () => graph.zoom(1 / 1.3));
$("zoom-fit").addEventListener("click", () => graph.fit());
$("toggle-sites").addEventListener("click", () => {
  const sites = [...model.groups.values()].filter((group) => group.site);
  const open = !sites.every((group) => graph.isOpen(group.id));
  graph.toggleAll(open);
  $("toggle-sites").textContent = open ? "Close all sites" : "Open all sites";
});
$("service-list").addEventListener("click", (event) => {
  const name = event.target.closest("[data-service]")?.dataset.service;
  if (!name || !model) return;
  const here = [...model.nodes.values()].find((node) => node.kind === "instance" && node.service === name);
  if (here) graph.select(here.id);
  else location.assign(`/services/${encodeURIComponent(name)}`);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && again) load();
});
document.addEventListener("edgewake:done", load);
new ResizeObserver(() => graph.cy.resize()).observe($("graph"));

addEventListener("hashchange", () => show(location.hash === "#tables"));
show(location.hash === "#tables");
await load();
graph.fit();
$("toggle-sites").textContent = model && [...model.groups.keys()].every((id) => graph.isOpen(id)) ? "Close all sites" : "Open all sites";
on("status", load);
on("gap", load);
keepFresh("status");
