// What is said beside the graph of what is selected, and what can be done about it.

import { h, icon, may, state } from "./dom.js";
import { count, mib, milliseconds, percent } from "./format.js";
import { countsOf, instancesOf } from "./graph-model.js";

// Returns the elements of the panel for a node, a link or a closed site.
export function detailsOf(model, id, hands) {
  const group = model.groups.get(id);
  if (group) return siteDetails(model, group, hands);
  const link = model.links.get(id) ?? bundleOf(model, id);
  if (link) return Array.isArray(link) ? bundleDetails(model, link, hands) : linkDetails(model, link, hands);
  const node = model.nodes.get(id);
  if (!node) return [];
  return { host: hostDetails, instance: instanceDetails, router: routerDetails, population: populationDetails }[node.kind](model, node, hands);
}

const bundleOf = (model, id) => {
  const [a, b] = id.split("|");
  if (!b) return null;
  const end = (node) => [node, model.sites.get(node)];
  const joins = (link) => (end(link.source).includes(a) && end(link.target).includes(b)) || (end(link.source).includes(b) && end(link.target).includes(a));
  return [...model.links.values()].filter((link) => link.kind === "link" && joins(link));
};

function head(kind, title, hands, badge = null) {
  return [
    h("p", { class: "detail-kind" }, kind),
    h("div", { class: "detail-head" }, h("h2", {}, title), h("button", { class: "button quiet icon", type: "button", "aria-label": "Close details", click: hands.close }, icon("i-close"))),
    badge,
  ].filter(Boolean);
}

const facts = (...pairs) => h("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const to = (model, id, hands) => h("button", { class: "button inline", type: "button", "data-key": id, click: () => hands.select(id) }, model.nodes.get(id)?.label ?? id);

// Returns a button that asks the API, as the macro `action` writes it.
export function action(label, method, path, { body, confirm, done, undo, kind = "", least = "operator" } = {}) {
  return h("button", {
    class: `button ${kind}`.trim(), type: "button", "data-action": "", "data-method": method, "data-path": path, "data-body": body === undefined ? null : JSON.stringify(body),
    "data-confirm": confirm, "data-done": done, "data-undo-method": undo?.[0], "data-undo-path": undo?.[1], disabled: !may(least), title: may(least) ? null : `this needs the role ${least}`,
  }, label);
}

const name = encodeURIComponent;

function siteDetails(model, group, hands) {
  const { awake, waking, asleep } = countsOf(instancesOf(model, group));
  return [
    ...head("site", group.label, hands),
    facts(["Hosts", count(group.hosts.length)], ["Routers", count(group.routers.length)], ["Awake", count(awake)], ["Waking", count(waking)], ["Asleep", count(asleep)]),
    h("div", { class: "row" }, h("button", { class: "button", type: "button", click: hands.toggle }, hands.open(group.id) ? "Close this site" : "Open this site")),
  ];
}

function hostDetails(model, host, hands) {
  const path = `/hosts/${name(host.label)}`;
  const instances = model.instances.get(host.id) || [];
  const drained = host.state === "draining" || host.state === "drained";
  return [
    ...head("host", host.label, hands, state(host.state)),
    host.why ? h("p", { class: "muted" }, host.why) : null,
    facts(
      ["Site", host.parent?.replace(/^site:/, "")],
      ["Memory", `${mib(host.used.memory_mib)} of ${mib(host.usable.memory_mib)}`],
      ["Processors", `${count(host.used.cpu)} of ${count(host.usable.cpu)}`],
      ["Instances", instances.length ? h("ul", { class: "plain-list" }, ...instances.map((each) => h("li", { "data-key": each.id }, h("button", { class: "button inline", type: "button", click: () => hands.select(each.id) }, state(each.state, each.label))))) : "none"],
    ),
    h("div", { class: "row" },
      drained
        ? action("Use again", "DELETE", `${path}/drain`, { done: `${host.label} is used again` })
        : action("Drain", "POST", `${path}/drain`, { body: { force: false }, confirm: `All that runs on ${host.label} moves to other hosts, and nothing new is placed there until you use it again.`, done: `${host.label} is being drained`, undo: ["DELETE", `${path}/drain`] }),
      h("a", { class: "button quiet", href: path }, "All about it")),
  ].filter(Boolean);
}

function instanceDetails(model, instance, hands) {
  const path = `/services/${name(instance.service)}`;
  const here = model.nodes.get(instance.parent);
  const awake = instance.rung === "ready";
  return [
    ...head("instance", instance.label, hands, state(instance.state)),
    facts(["Instance", instance.id.replace(/^instance:/, "")], ["Service", h("a", { href: path }, instance.service)], ["Host", here ? to(model, here.id, hands) : null]),
    h("div", { class: "row" },
      awake
        ? action("Put to sleep", "POST", `${path}/sleep`, { body: {}, done: `${instance.service} sleeps` })
        : action("Wake", "POST", `${path}/wake`, { body: {}, done: `${instance.service} is awake` }),
      h("a", { class: "button quiet", href: path }, "All about it")),
    moveForm(model, instance, here),
  ].filter(Boolean);
}

function moveForm(model, instance, here) {
  const hosts = [...model.nodes.values()].filter((node) => node.kind === "host" && node.id !== here?.id && node.state === "up");
  if (!hosts.length || !may("operator") || instance.rung !== "ready") return null;
  return h("form", { class: "row", "data-action": "", "data-method": "POST", "data-path": `/services/${name(instance.service)}/move`, "data-done": `${instance.service} has moved`, "data-confirm": `${instance.service} is started there first; clients are led to it, then the one here ends.` },
    h("label", { for: "move-to" }, "Move to"),
    h("select", { id: "move-to", name: "host" }, ...hosts.map((host) => h("option", { value: host.label }, host.label))),
    h("button", { class: "button", type: "submit" }, "Move"));
}

function routerDetails(model, router, hands) {
  const links = [...model.links.values()].filter((link) => link.source === router.id || link.target === router.id);
  const others = links.map((link) => (link.source === router.id ? link.target : link.source));
  return [
    ...head("router", router.label, hands, state(router.state)),
    router.why ? h("p", { class: "muted" }, router.why) : null,
    facts(
      ["Site", router.parent?.replace(/^site:/, "")],
      ["Programs", count(router.apps)],
      ["Traffic", router.load ? `${count(router.load.rx_mbps)} Mbit/s in, ${count(router.load.tx_mbps)} out` : null],
      ["Joined to", h("span", { class: "row" }, ...others.map((id) => to(model, id, hands)))],
    ),
    h("div", { class: "row" }, h("a", { class: "button quiet", href: `/network#router-${router.label}` }, "All about it")),
  ].filter(Boolean);
}

function populationDetails(model, population, hands) {
  const at = model.links.get(`attachment:${population.id}`)?.target;
  return [
    ...head("clients", population.label, hands),
    facts(["Usual requests", `${count(population.requests_s)}/s`], ["Come in at", at ? to(model, at, hands) : null]),
  ];
}

function linkFacts(link) {
  return facts(
    ["Latency, one way", milliseconds(link.latency_ms)],
    ["Loss", link.loss ? percent(link.loss) : null],
    ["Bandwidth", link.bandwidth_mbps ? `${count(link.bandwidth_mbps)} Mbit/s` : "not limited"],
    ["Weight", count(link.weight)],
    ["There", link.load ? `${count(link.load.there_mbps)} Mbit/s` : null],
    ["Back", link.load ? `${count(link.load.back_mbps)} Mbit/s` : null],
    ["Load", link.load?.share !== undefined && link.load?.share !== null ? percent(link.load.share) : null],
  );
}

function linkDetails(model, link, hands) {
  if (link.kind !== "link") return [];
  const path = `/links/${name(link.label)}`;
  const ways = [to(model, link.source, hands), to(model, link.target, hands)];
  const change = link.up
    ? action("Take down", "POST", `${path}/down`, { confirm: `Packets take another way, if there is one. This lasts until the lab is applied again.`, done: `${link.label} is down`, undo: ["POST", `${path}/up`] })
    : action("Bring up", "POST", `${path}/up`, { done: `${link.label} is up` });
  return [
    ...head("link", link.label, hands, state(link.state)),
    linkFacts(link),
    h("div", { class: "row" }, ...ways),
    link.state === "planned" ? h("p", { class: "muted" }, "This lab does not run its network: links are only counted with.") : h("div", { class: "row" }, change),
  ];
}

function bundleDetails(model, links, hands) {
  return [
    ...head("links", `${links.length} links`, hands),
    h("ul", { class: "plain-list" }, ...links.map((link) => h("li", {}, state(link.state, link.label), " ", h("span", { class: "muted" }, milliseconds(link.latency_ms))))),
  ];
}
