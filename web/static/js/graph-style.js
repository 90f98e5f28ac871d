// How the graph looks: colours from the style sheet's tokens, symbols from the page's sprite.

import { BUSY } from "./graph-model.js";
import { HOST_W } from "./graph-layout.js";

const TOKENS = ["paper", "surface", "raised", "sunken", "line", "line-strong", "ink", "muted", "accent", "awake", "waking", "asleep", "moving", "trouble", "calm"];
const TONES = {
  ready: "awake", awake: "awake", reachable: "awake", up: "awake",
  booting: "waking", rousing: "waking", waking: "waking",
  paused: "asleep", saved: "asleep", asleep: "asleep", cold: "asleep",
  migrating: "moving", stopping: "moving", draining: "moving", drained: "calm",
  planned: "calm", elsewhere: "calm", unknown: "waking", lost: "trouble", refused: "trouble", failed: "trouble", trouble: "trouble", down: "trouble", missing: "trouble",
};

// Returns the colours that hold now, as canvases understand them.
export function colours() {
  const probe = document.body.appendChild(document.createElement("span"));
  const found = {};
  for (const token of TOKENS) {
    probe.style.color = `var(--${token})`;
    found[token] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

export const toneOf = (state, palette) => palette[TONES[state] ?? "calm"];

const drawn = new Map();

// Returns a symbol of the sprite as an image, in a colour; NO_IMAGE if there is no such symbol.
export function symbol(name, colour, palette) {
  const key = `${name} ${colour}`;
  if (!drawn.has(key)) {
    let source = document.getElementById(name);
    const used = source?.querySelector("use")?.getAttribute("href");
    if (used && source.children.length === 1) source = document.querySelector(used);
    if (!source) return NO_IMAGE;
    const writer = new XMLSerializer();
    const inner = [...source.children].map((child) => writer.serializeToString(child)).join("");
    const text = inner.replaceAll("currentColor", colour).replaceAll("var(--surface)", palette.surface).replaceAll("var(--waking)", palette.waking);
    drawn.set(key, image(`<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 16 16">${text}</svg>`));
  }
  return drawn.get(key);
}

export const NO_IMAGE = "none";

const image = (svg) => `data:image/svg+xml;utf8,${encodeURIComponent(svg)}`;

// Returns a bar as an image: parts are [share, colour].
export function bar(parts, back) {
  let x = 0;
  const rects = parts.map(([share, colour]) => {
    const rect = `<rect x="${x}" width="${share * 100}" height="4" fill="${colour}"/>`;
    x += share * 100;
    return rect;
  });
  return image(`<svg xmlns="http://www.w3.org/2000/svg" width="100" height="4" viewBox="0 0 100 4" preserveAspectRatio="none"><rect width="100" height="4" fill="${back}"/>${rects.join("")}</svg>`);
}

export function styleOf(palette) {
  const text = { "font-family": '"Plex Sans", system-ui, sans-serif', color: palette.ink, "min-zoomed-font-size": 6 };
  return [
    { selector: "node", style: { ...text, "font-size": 11, label: "data(label)", "text-wrap": "ellipsis", "overlay-opacity": 0 } },
    {
      selector: ".group",
      style: {
        shape: "round-rectangle", "corner-radius": 10, width: "data(w)", height: "data(h)", "background-color": palette.surface, "background-opacity": 0.75,
        "border-width": 1, "border-color": palette.line, "text-valign": "top", "text-margin-y": -4, "font-size": 13, "font-weight": 600, color: palette.muted,
        "text-max-width": "data(w)", "z-compound-depth": "bottom",
      },
    },
    { selector: ".alone", style: { "background-opacity": 0, "border-width": 0, label: "", events: "no" } },
    {
      selector: ".closed",
      style: {
        shape: "round-rectangle", "corner-radius": 10, width: "data(w)", height: "data(h)", "background-color": palette.raised, "border-width": 1, "border-color": palette["line-strong"],
        "text-wrap": "wrap", "text-valign": "center", "text-margin-y": -4, "text-max-width": 166, "font-size": 15, "line-height": 1.25,
        "background-image": "data(bar)", "background-width": "90%", "background-height": 4, "background-position-y": "88%", "background-clip": "none",
      },
    },
    {
      selector: ".host",
      style: {
        shape: "round-rectangle", "corner-radius": 7, width: HOST_W, height: "data(h)", "background-color": palette.raised, "border-width": 1, "border-color": palette["line-strong"],
        "text-valign": "top", "text-margin-y": 18, "font-weight": 600, "text-max-width": HOST_W - 44, "z-index": 2,
        "background-image": "data(images)", "background-width": [HOST_W - 16, 13], "background-height": [4, 13],
        "background-position-x": ["50%", 8], "background-position-y": [24, 6], "background-image-smoothing": ["no", "yes"],
      },
    },
    { selector: ".closed.trouble", style: { "border-color": palette.trouble, "border-width": 2.5, color: palette.trouble } },
    { selector: ".host.trouble", style: { "border-color": palette.trouble, "border-width": 2, "border-style": "dashed" } },
    { selector: ".host.draining", style: { "border-color": palette.moving, "border-style": "dashed", "border-width": 1.5 } },
    {
      selector: ".instance",
      style: {
        shape: "ellipse", width: 14, height: 14, "background-opacity": 0, "background-image": "data(symbol)", "background-fit": "contain", "text-halign": "right", "text-valign": "center",
        "text-margin-x": 4, "font-size": 10.5, color: palette.ink, "text-max-width": 58, "text-events": "yes", "z-index": 3,
      },
    },
    { selector: ".instance.dot", style: { label: "" } },
    {
      selector: ".router",
      style: {
        shape: "hexagon", width: 26, height: 24, "background-color": palette.surface, "border-width": 1.6, "border-color": "data(tone)", "background-image": "data(symbol)",
        "background-width": 14, "background-height": 14, "text-valign": "bottom", "text-margin-y": 3, "text-max-width": 92, "font-size": 10, color: palette.muted, "z-index": 3,
      },
    },
    {
      selector: ".population",
      style: {
        shape: "ellipse", width: 26, height: 26, "background-color": palette.sunken, "border-width": 1, "border-color": palette["line-strong"], "background-image": "data(symbol)",
        "background-width": 15, "background-height": 15, "text-valign": "bottom", "text-margin-y": 3, "text-max-width": 92, "font-size": 10, color: palette.muted, "z-index": 3,
      },
    },
    {
      selector: "edge",
      style: {
        ...text, "curve-style": "straight", width: "data(width)", "line-color": "data(colour)", label: "data(label)", "font-size": 9.5, "min-zoomed-font-size": 7.5, color: palette.muted, "text-background-color": palette.paper,
        "text-background-opacity": 0.9, "text-background-padding": 2, "text-background-shape": "round-rectangle", "overlay-opacity": 0, "z-index": 1, "z-compound-depth": "auto",
      },
    },
    { selector: "edge.hangs", style: { "line-color": palette["line-strong"], "line-opacity": 0.55, width: 1, "line-style": "dotted", label: "", events: "no" } },
    { selector: "edge.down", style: { "line-style": "dashed", "line-color": palette.trouble, color: palette.trouble } },
    { selector: "edge.moves", style: { "line-color": palette.moving, color: palette.moving, width: 2, "curve-style": "unbundled-bezier", "target-arrow-shape": "triangle", "target-arrow-color": palette.moving, "z-index": 5 } },
    { selector: ".arrives", style: { "background-color": palette.awake, "background-opacity": 0.25, "border-width": 1.5, "border-color": palette.awake, "border-style": "dashed" } },
    { selector: ".leaves", style: { opacity: 0.75, "border-width": 1.5, "border-color": palette.moving, "border-style": "dashed", "text-opacity": 0.6 } },
    { selector: ".faint", style: { opacity: 0.22 } },
    { selector: ":selected", style: { "border-width": 2.5, "border-color": palette.accent, "border-style": "solid" } },
    { selector: "edge:selected", style: { "line-color": palette.accent, color: palette.accent, width: 4 } },
    { selector: ".instance:selected", style: { "border-width": 2, "border-color": palette.accent, "background-color": palette.accent, "background-opacity": 0.15, "font-weight": 600 } },
  ];
}

export function edgeLook({ load, up }, palette) {
  const colour = !up ? palette.trouble : load >= BUSY ? palette.waking : load > 0.01 ? palette.accent : palette["line-strong"];
  return { width: 1.3 + 5 * Math.min(1, load), colour };
}
