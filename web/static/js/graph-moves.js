// What a plan would change, on the graph: ghosts where services arrive, marks where they leave, and
// arrows between. Pure.

// Returns a graph document with the arrivals in it, and what to mark: ids that arrive and leave,
// arrows from one to the other, and the sites to open for it.
export function withMoves(lab, moves) {
  const nodes = [...lab.nodes];
  const marks = { arrives: [], leaves: [], arrows: [], open: new Set() };
  const sites = new Map(nodes.map((node) => [node.id, node.parent]));
  moves.forEach((move, number) => {
    const here = move.source && nodes.find((node) => node.kind === "instance" && node.service === move.service && node.parent === `host:${move.source}`);
    const to = move.to ? `arrival:${number}` : "";
    if (to) {
      nodes.push({ kind: "instance", id: to, label: move.service, parent: `host:${move.to}`, service: move.service, state: "booting", rung: "ready" });
      marks.arrives.push(to);
    }
    if (here) marks.leaves.push(here.id);
    if (here && to) marks.arrows.push({ id: `move:${number}`, source: here.id, target: to });
    for (const host of [move.source, move.to]) if (host && sites.get(`host:${host}`)) marks.open.add(sites.get(`host:${host}`));
  });
  const known = new Set(nodes.map((node) => node.id));
  return { model: { ...lab, nodes: nodes.filter((node) => node.kind !== "instance" || known.has(node.parent)) }, marks };
}
