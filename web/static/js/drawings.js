// Small drawings of live things, as templates/_drawings.html draws them.

import { h } from "./dom.js";
import { seconds } from "./format.js";

const WIDTH = 1000;
const PART = ["ours", "hypervisor", "guest"]; // of a wake; a client's time is after it
const SET_GOING = new Set(["start", "roused"]);

// Returns the seconds that were each owner's, by owner; `stages` is what the page was given.
export function shares(stamps, stages) {
  const spent = new Map(PART.map((owner) => [owner, 0]));
  stamps.slice(1).forEach(([stage, at], index) => {
    const inCall = stage === "frame" && SET_GOING.has(stamps[index + 2]?.[0]);
    const owner = inCall ? "hypervisor" : stages[stage]?.owner ?? "hypervisor";
    if (spent.has(owner)) spent.set(owner, spent.get(owner) + at - stamps[index][1]);
  });
  return spent;
}

// Returns a bar of whose time a wake was.
export function owners(stamps, stages) {
  const spent = [...shares(stamps, stages)].filter(([, took]) => took > 0);
  const total = spent.reduce((sum, [, took]) => sum + took, 0) || 1;
  const label = spent.map(([owner, took]) => `${owner} ${seconds(took)}`).join(", ") || "no time yet";
  const bar = h("svg", { class: "owners", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  let x = 0;
  for (const [owner, took] of spent) {
    const width = (took / total) * WIDTH;
    bar.append(h("rect", { class: `o-${owner}`, x: x.toFixed(2), width: width.toFixed(2), height: 10 }));
    x += width;
  }
  return bar;
}
