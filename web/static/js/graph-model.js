// The document of /graph as what is drawn: groups with hosts, routers and populations, instances in
// hosts, links between. Pure: no page, no drawing.

export const BUSY = 0.8; // of a link: from here its colour warns
export const MANY = 150; // nodes: from here sites begin closed
const ASLEEP = new Set(["paused", "saved", "asleep", "cold"]);
const AWAKE = new Set(["ready", "awake", "migrating"]);
const COMING = new Set(["booting", "rousing", "waking"]);

// Returns {nodes, links, groups, instances, sites}: maps by id; `sites` says the group of each node.
export function read(document) {
  const drawn = document.nodes.filter((node) => node.kind !== "site").sort((a, b) => (a.id < b.id ? -1 : 1));
  const nodes = new Map(drawn.map((node) => [node.id, node]));
  const sites = sitesOf(document, nodes);
  const groups = new Map();
  const instances = new Map();
  for (const node of drawn) {
    if (node.kind === "instance") {
      if (!instances.has(node.parent)) instances.set(node.parent, []);
      instances.get(node.parent).push(node);
      continue;
    }
    const id = sites.get(node.id);
    if (!groups.has(id)) {
      groups.set(id, { id, label: id.slice(id.indexOf(":") + 1), site: id.startsWith("site:"), hosts: [], routers: [], populations: [] });
    }
    groups.get(id)[`${node.kind}s`].push(node);
  }
  const links = new Map(document.edges.map((edge) => [edge.id, edge]));
  return { nodes, links, groups, instances, sites };
}

// Returns the group of each node: its site, else the router it hangs on, else itself. A router that
// says no site is at that of its hosts, if that is one.
function sitesOf(document, nodes) {
  const at = new Map();
  for (const { kind, source, target } of document.edges) {
    if (kind === "attachment") at.set(source, target);
    else if (source.startsWith("host:") && !at.has(source)) at.set(source, target);
    else if (target.startsWith("host:") && !at.has(target)) at.set(target, source);
  }
  const near = new Map();
  for (const [end, router] of at) {
    const site = nodes.get(end)?.kind === "host" && nodes.get(end).parent;
    if (site) near.set(router, near.has(router) && near.get(router) !== site ? "" : site);
  }
  const sites = new Map();
  for (const node of nodes.values()) {
    if (node.kind === "instance") continue;
    const router = at.get(node.id) || node.id;
    sites.set(node.id, node.parent || nodes.get(router)?.parent || near.get(router) || `alone:${router}`);
  }
  for (const node of nodes.values()) if (node.kind === "instance") sites.set(node.id, sites.get(node.parent));
  return sites;
}

export function countsOf(instances) {
  const counts = { awake: 0, waking: 0, asleep: 0, other: 0 };
  for (const { state } of instances) {
    if (AWAKE.has(state)) counts.awake += 1;
    else if (COMING.has(state)) counts.waking += 1;
    else if (ASLEEP.has(state)) counts.asleep += 1;
    else counts.other += 1;
  }
  return counts;
}

export const instancesOf = (model, group) => group.hosts.flatMap((host) => model.instances.get(host.id) || []);

// Returns in a few words what is in a group.
export function summary(model, group) {
  const instances = instancesOf(model, group);
  const { awake, waking } = countsOf(instances);
  if (waking) return `${waking} waking, ${awake} of ${instances.length} awake`;
  if (instances.length) return awake ? `${awake} of ${instances.length} awake` : `all ${instances.length} asleep`;
  const [what, number] = group.hosts.length ? ["host", group.hosts.length] : ["router", group.routers.length];
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

// Returns the worst of a group, which its closed box must not hide: a host that is lost, or "".
export function troubleOf(group) {
  return group.hosts.find((host) => host.state === "lost" || host.state === "refused")?.state ?? "";
}

// Returns links between closed groups and open nodes, those of the same two ends as one.
export function bundled(model, endOf) {
  const bundles = new Map();
  for (const link of model.links.values()) {
    const [a, b] = [endOf(link.source), endOf(link.target)].sort();
    if (!a || !b || a === b) continue;
    const id = a === link.source || a === link.target ? (b === link.source || b === link.target ? link.id : `${a}|${b}`) : `${a}|${b}`;
    if (!bundles.has(id)) bundles.set(id, { id, a, b, links: [] });
    bundles.get(id).links.push(link);
  }
  return [...bundles.values()];
}

// Returns what is drawn of a bundle of links: label, load (0 to 1) and whether all are down.
export function look(bundle) {
  const links = bundle.links;
  const latencies = links.map((link) => link.latency_ms).filter((each) => each !== null && each !== undefined);
  const load = Math.max(0, ...links.map((link) => link.load?.share ?? 0));
  const up = links.some((link) => link.up !== false && link.state !== "missing");
  const real = links.some((link) => link.kind === "link");
  const fastest = latencies.length && real ? `${Number(Math.min(...latencies).toPrecision(3))} ms` : "";
  const label = !up ? "down" : links.length > 1 && fastest ? `${fastest} ×${links.length}` : fastest;
  return { label, load, up, real };
}

// Returns whether a node answers to what a person typed.
export function matches(node, words) {
  const text = [node.label, node.kind, node.state, node.service, node.id, node.parent, node.why].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}
