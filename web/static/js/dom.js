// Making and changing elements without ever reading text as HTML.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "use", "g", "path", "rect", "circle", "line", "text", "title", "polyline", "polygon"]);

// Returns an element: h("a", {href: "/"}, "text", child). Properties that are functions are
// listeners by the name of their event; null, undefined and false are left out.
export function h(name, properties = {}, ...children) {
  const element = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const icon = (name) => h("svg", { "aria-hidden": "true" }, h("use", { href: `#${name}` }));

// A state by colour, shape and word, as the macro `state` writes it.
export const state = (name, label = name) =>
  h("span", { class: `state s-${name}` }, icon(`s-${name}`), h("span", {}, label));

export const role = () => document.querySelector('meta[name="role"]')?.content ?? "";

const ROLES = ["viewer", "operator", "admin"];
export const may = (least) => ROLES.indexOf(role()) >= ROLES.indexOf(least);

// Makes `old` like `fresh`, changing as little as can be: what stays keeps its focus, selection,
// scroll and listeners. Children are told apart by id or data-key. Elements with data-keep are
// left alone, and so is what a person just writes or has opened.
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep") || old.isEqualNode(fresh)) return;
  attributes(old, fresh);
  if (old instanceof HTMLInputElement || old instanceof HTMLTextAreaElement) return;
  morphChildren(old, fresh);
}

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "aria-busy") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");

// Makes the children of `old` like those of `fresh`, as `morph` does.
export function morphChildren(old, fresh) {
  const known = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  const wanted = new Set([...fresh.childNodes].map(keyOf).filter(Boolean));
  let place = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    const key = keyOf(node);
    while (place && keyOf(place) && !wanted.has(keyOf(place))) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
    const match = key ? known.get(key) : place && !keyOf(place) ? place : null;
    if (!match) {
      old.insertBefore(node, place);
    } else if (match === place) {
      place = place.nextSibling;
      morph(match, node);
    } else {
      old.insertBefore(match, place);
      morph(match, node);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}
