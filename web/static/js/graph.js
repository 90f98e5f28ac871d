// The graph on a page: draws a model with Cytoscape.js, and changes what changed when it is drawn
// again. Nothing here knows what a click leads to: `chosen(id)` is told.

import cytoscape from "../vendor/cytoscape/cytoscape.esm.min.mjs";
import { arrange, hostHeight, inside, separate, slotOf, slots } from "./graph-layout.js";
import { MANY, bundled, countsOf, instancesOf, look, matches, summary, troubleOf } from "./graph-model.js";
import { NO_IMAGE, bar, colours, edgeLook, styleOf, symbol, toneOf } from "./graph-style.js";
import { percent } from "./format.js";

const CLOSED = { w: 172, h: 66 };
const SLOTS_KEPT = 4; // places on each host's card at least, so that it does not grow all the time
const READABLE = 0.7; // zoom from which names can be read
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Graph {
  constructor(element, { chosen = () => {} } = {}) {
    this.element = element;
    this.palette = colours();
    this.open = new Set();
    this.model = null;
    this.structure = this.shape = "";
    this.most = new Map(); // instances that a host had at most: its card never shrinks
    this.cy = cytoscape({
      container: element, style: styleOf(this.palette), autoungrabify: true, boxSelectionEnabled: false, selectionType: "single",
      minZoom: 0.04, maxZoom: 3, layout: { name: "null" },
    });
    this.cy.on("select unselect", () => {
      const [one] = this.cy.$(":selected");
      chosen(one ? one.id() : "");
    });
    this.cy.on("dbltap", ".closed, .group", (event) => this.toggle(event.target.id()));
    element.addEventListener("keydown", (event) => this.key(event));
    const recolour = () => this.recolour();
    document.addEventListener("edgewake:theme", recolour);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  }

  // Marks what a plan would change; marks of before are gone.
  mark({ arrives, leaves, arrows }) {
    this.cy.batch(() => {
      this.cy.elements(".moves").remove();
      this.cy.elements().removeClass("arrives leaves");
      for (const id of arrives) this.cy.getElementById(id).addClass("arrives");
      for (const id of leaves) this.cy.getElementById(id).addClass("leaves");
      const drawn = arrows.filter((each) => [each.source, each.target].every((id) => this.cy.getElementById(id).nonempty()));
      this.cy.add(drawn.map((data) => ({ group: "edges", classes: "moves", data: { label: "", width: 2, colour: "", ...data } })));
    });
  }

  // Draws a model; what stays is not touched, so that nothing flickers.
  draw(model, { open } = {}) {
    const first = !this.model;
    this.model = model;
    if (first) {
      const few = model.nodes.size <= MANY;
      for (const group of model.groups.values()) if (few || !group.site) this.open.add(group.id);
    }
    for (const id of open || []) this.open.add(id);
    const wanted = this.elements();
    this.cy.batch(() => this.change(wanted));
    if (first) this.fit();
  }

  isOpen(id) {
    return this.open.has(id) || !this.model.groups.get(id)?.site;
  }

  endOf(id) {
    const node = this.model.nodes.get(id);
    const group = this.model.sites.get(id);
    if (!node || !group) return "";
    return this.isOpen(group) ? id : group;
  }

  elements() {
    const { model } = this;
    for (const [host, instances] of model.instances) this.most.set(host, Math.max(this.most.get(host) || SLOTS_KEPT, instances.length));
    for (const group of model.groups.values()) for (const host of group.hosts) host.slots = this.most.get(host.id) || SLOTS_KEPT;
    const insides = new Map();
    const boxes = [...model.groups.values()].map((group) => {
      if (!this.isOpen(group.id)) return { id: group.id, width: CLOSED.w, height: CLOSED.h };
      const within = inside(group);
      insides.set(group.id, within);
      return { id: group.id, width: within.width, height: within.height };
    });
    const centres = this.centres(boxes);
    const elements = [];
    for (const group of model.groups.values()) {
      const centre = centres.get(group.id);
      if (insides.has(group.id)) elements.push(...this.opened(group, centre, insides.get(group.id)));
      else elements.push(this.closed(group, centre));
    }
    for (const bundle of bundled(model, (id) => this.endOf(id))) elements.push(this.edge(bundle));
    return elements;
  }

  // Returns where groups are: anew only if there are other groups or links; where sizes alone have
  // changed, they are pushed apart from where they were first, and come back when sizes do.
  centres(boxes) {
    const pairs = [...this.model.links.values()].map((link) => [this.model.sites.get(link.source), this.model.sites.get(link.target)]);
    const structure = JSON.stringify([boxes.map((box) => box.id), pairs]);
    if (structure !== this.structure) {
      this.structure = structure;
      this.base = arrange(boxes, pairs, this.element.clientWidth / (this.element.clientHeight || 1) || undefined);
    }
    const shape = structure + JSON.stringify(boxes);
    if (shape !== this.shape) [this.shape, this.places] = [shape, separate(this.base, boxes)];
    return this.places;
  }

  closed(group, centre) {
    const { palette, model } = this;
    const { awake, waking, asleep, other } = countsOf(instancesOf(model, group));
    const all = awake + waking + asleep + other || 1;
    const parts = [[awake / all, palette.awake], [waking / all, palette.waking], [asleep / all, palette.asleep]];
    const trouble = troubleOf(group);
    return node(group.id, trouble ? "closed trouble" : "closed", centre, { label: `${group.label}\n${trouble ? `a host is ${trouble}` : summary(model, group)}`, bar: bar(parts, palette.sunken), ...CLOSED });
  }

  opened(group, centre, { width, height, places }) {
    const at = (id) => ({ x: centre.x + places.get(id).x, y: centre.y + places.get(id).y });
    const elements = [node(group.id, group.site ? "group" : "group alone", centre, { label: group.label, w: width, h: height })];
    for (const host of group.hosts) elements.push(...this.host(host, at(host.id)));
    for (const router of group.routers) elements.push(this.small(router, "router", "i-router", at(router.id)));
    for (const population of group.populations) elements.push(this.small(population, "population", "i-people", at(population.id)));
    return elements;
  }

  host(host, place) {
    const { palette } = this;
    const height = hostHeight(host.slots);
    const share = host.usable?.memory_mib ? Math.min(1, (host.used?.memory_mib ?? 0) / host.usable.memory_mib) : 0;
    const used = Math.round(share * 20) / 20;
    const bad = host.state === "lost" || host.state === "refused";
    const images = [bar([[used, used > 0.85 ? palette.waking : palette.accent]], palette.sunken), host.state === "up" ? NO_IMAGE : symbol(`s-${host.state}`, toneOf(host.state, palette), palette)];
    const data = { label: host.label, h: height, images };
    const elements = [node(host.id, `host ${bad ? "trouble" : host.state}`, place, data)];
    const instances = this.model.instances.get(host.id) || [];
    const { named } = slots(host.slots);
    instances.forEach((instance, index) => {
      const slot = slotOf(index, host.slots, height);
      const classes = named ? "instance" : "instance dot";
      elements.push(node(instance.id, classes, { x: place.x + slot.x, y: place.y + slot.y }, {
        label: instance.label, symbol: symbol(`s-${instance.state}`, toneOf(instance.state, palette), palette), state: instance.state,
      }));
    });
    return elements;
  }

  small(item, kind, name, place) {
    const tone = toneOf(item.state ?? "up", this.palette);
    return node(item.id, kind, place, { label: item.label, tone: kind === "router" ? tone : "", symbol: symbol(name, kind === "router" ? tone : this.palette.muted, this.palette) });
  }

  edge(bundle) {
    const shown = look(bundle);
    const classes = [shown.real ? "" : "hangs", shown.up ? "" : "down"].join(" ").trim();
    const words = shown.real && shown.load > 0.01 ? `${shown.label} · ${percent(shown.load)}` : shown.label;
    return { group: "edges", classes, data: { id: bundle.id, source: bundle.a, target: bundle.b, label: words, ...edgeLook(shown, this.palette) } };
  }

  change(wanted) {
    const ids = new Set(wanted.map((each) => each.data.id));
    this.cy.elements().filter((each) => !ids.has(each.id()) && !each.hasClass("moves")).remove();
    const fresh = [];
    for (const each of wanted) {
      const old = this.cy.getElementById(each.data.id);
      if (old.empty()) {
        fresh.push(each);
        continue;
      }
      const keep = ["faint", "arrives", "leaves"].filter((name) => old.hasClass(name));
      old.data(each.data);
      old.classes([each.classes, ...keep].filter(Boolean).join(" "));
      if (each.position) this.move(old, each.position);
    }
    this.cy.add(fresh);
  }

  move(element, position) {
    const { x, y } = element.position();
    if (Math.abs(x - position.x) < 0.5 && Math.abs(y - position.y) < 0.5) return;
    element.position(position);
  }

  toggle(id) {
    if (!this.model.groups.get(id)?.site) return;
    if (!this.open.delete(id)) this.open.add(id);
    this.draw(this.model);
    this.show(id);
  }

  toggleAll(open) {
    for (const group of this.model.groups.values()) {
      if (open) this.open.add(group.id);
      else if (group.site) this.open.delete(group.id);
    }
    this.structure = "";
    this.draw(this.model);
    this.fit();
  }

  fit() {
    this.cy.resize();
    this.cy.fit(undefined, 36);
    if (this.cy.zoom() > 1.25) {
      this.cy.zoom(1.25);
      this.cy.center();
    }
  }

  zoom(by) {
    this.cy.zoom({ level: this.cy.zoom() * by, renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 } });
  }

  // Brings something into view and selects it; opens its site if need be.
  select(id) {
    const end = this.endOf(id) || id;
    if (end !== id && this.model.groups.has(end)) {
      this.open.add(end);
      this.draw(this.model);
    }
    this.cy.batch(() => {
      this.cy.$(":selected").unselect();
      this.cy.getElementById(id).select();
    });
    this.show(id);
  }

  show(id) {
    const element = this.cy.getElementById(id);
    if (element.empty()) return;
    const { x1, y1, x2, y2 } = element.renderedBoundingBox();
    if (this.cy.zoom() >= READABLE && x1 > 0 && y1 > 0 && x2 < this.cy.width() && y2 < this.cy.height()) return;
    const level = Math.max(this.cy.zoom(), READABLE);
    const aim = { center: { eles: element }, zoom: level };
    if (STILL.matches) {
      this.cy.zoom(level);
      this.cy.center(element);
    } else {
      this.cy.animate(aim, { duration: 220, easing: "ease-out" });
    }
  }

  // Fades all that does not answer to the words; returns the ids of what does.
  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? [...this.model.nodes.values()].filter((each) => matches(each, words)).map((each) => each.id) : [];
    const shown = new Set(found.map((id) => this.endOf(id)));
    for (const id of found) if (this.model.nodes.get(id).kind === "instance") shown.add(this.model.nodes.get(id).parent);
    this.cy.batch(() => {
      this.cy.elements().removeClass("faint");
      if (words.length) this.cy.elements().not(".group").filter((each) => !shown.has(each.id())).addClass("faint");
    });
    return found;
  }

  // Arrows go to the nearest in their direction; Enter opens a site; + - 0 zoom; Escape lets go.
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) this.step(way);
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else if (event.key === "Escape") this.cy.$(":selected").unselect();
    else if (event.key === "Enter" && this.cy.$("node:selected").nonempty()) this.toggle(this.cy.$("node:selected")[0].id());
    else return;
    event.preventDefault();
  }

  step([dx, dy]) {
    const nodes = this.cy.nodes().not(".alone");
    const [from] = this.cy.$("node:selected");
    if (!from) return nodes.nonempty() && this.select(nodes[0].id());
    const here = from.position();
    let best = null;
    let least = Infinity;
    nodes.forEach((each) => {
      const { x, y } = each.position();
      const along = (x - here.x) * dx + (y - here.y) * dy;
      const aside = Math.abs((x - here.x) * dy) + Math.abs((y - here.y) * dx);
      const far = along + 2.5 * aside;
      if (each.id() !== from.id() && along > 1 && far < least) [best, least] = [each, far];
    });
    return best && this.select(best.id());
  }

  recolour() {
    this.palette = colours();
    this.cy.style(styleOf(this.palette));
    if (this.model) this.draw(this.model);
  }
}

const node = (id, classes, position, data) => ({ group: "nodes", classes, position, data: { id, ...data } });
