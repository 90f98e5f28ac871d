// Doing things: buttons and forms with data-action ask the API, after a question where there is
// one; a toast says how far it is, what came of it, or in words why not.
//
//   <button data-action data-method="POST" data-path="/hosts/a/drain" data-body="{}"
//           data-confirm="Drain a?" data-done="a is drained" data-undo-method="DELETE" …>
//   <form data-action data-method="PUT" data-path="/links/{link}"> <input name="link"> <input
//     name="weight" data-type="number">   (a field that the path names is not in the body)
//
// When something is done, `edgewake:done` is dispatched on the document with {path, result}.

import { h, icon, state } from "./dom.js";
import { on } from "./live.js";

const PREFIX = "/api/v1";
const POLL_MS = 1000; // of an operation, beside the live stream
const GOOD_MS = 6000; // a good end is shown so long; a bad one until it is closed
const OVER = new Set(["done", "failed"]);

// Why the API refused or failed: its problem document (RFC 9457), never a page of HTML.
export class Problem extends Error {
  constructor(document, status) {
    super(document.detail || document.title || `HTTP status ${status}`);
    this.status = status;
    this.hint = document.hint || "";
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    this.document = document;
  }
}

// Asks the API; returns the answer's document. Raises Problem.
export async function ask(method, path, body) {
  return (await request(method, path, body)).document;
}

// Asks the API; returns {document, status, location}; `more` are headers. Raises Problem.
export async function request(method, path, body, more = {}) {
  const headers = { Accept: "application/json", ...more };
  if (method !== "GET") headers["X-CSRF-Token"] = document.querySelector('meta[name="csrf"]').content;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(PREFIX + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem({ detail: "edgewake does not answer", hint: "is it running, and is this machine connected?" }, 0);
  }
  const document_ = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Problem({ ...document_, hint: document_.hint || "log in again: load this page" }, 401);
  if (!answer.ok) throw new Problem(document_, answer.status);
  return { document: document_, status: answer.status, location: answer.headers.get("Location") };
}

// Does something and waits for its end, however long it takes; returns its result. `progress` is
// called with each operation document on the way; `headers` go with the request. Raises Problem.
export async function perform(method, path, body, progress = () => {}, headers = {}) {
  const first = await request(method, path, body, headers);
  if (first.status !== 202) return first.document.state && first.document.kind ? ended(first.document) : first.document;
  progress(first.document);
  return ended(await follow(first.document, progress));
}

function ended(operation) {
  if (operation.state === "failed") throw new Problem(operation.problem || {}, operation.problem?.status ?? 500);
  return operation.result;
}

function follow(operation, progress) {
  if (OVER.has(operation.state)) return Promise.resolve(operation);
  return new Promise((resolve, reject) => {
    const see = (document_) => {
      if (document_.id !== operation.id) return;
      progress(document_);
      if (OVER.has(document_.state)) finish(resolve, document_);
    };
    const quiet = on("operation", see);
    const timer = setInterval(() => ask("GET", `/operations/${operation.id}`).then(see, (problem) => {
      if (problem.status >= 400) finish(reject, problem);
    }), POLL_MS);
    const finish = (end, value) => {
      clearInterval(timer);
      quiet();
      end(value);
    };
  });
}

// Asks a question; true if the answer is yes.
export function confirmed(text, { title = "Are you sure?", yes = "Yes", danger = false } = {}) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  const button = document.getElementById("confirm-yes");
  button.textContent = yes;
  button.classList.toggle("danger", danger);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// Shows something at the corner of the page; returns {say, fail, end}.
export function toast(text) {
  const element = h("div", { class: "toast", "data-testid": "toast" });
  const close = h("button", { class: "button quiet icon", type: "button", "aria-label": "Close", click: () => element.remove() }, icon("i-close"));
  const fill = (name, words, ...more) => {
    const badge = state(name, "");
    element.replaceChildren(badge, h("div", {}, words), close, ...more);
    element.dataset.state = name;
  };
  fill("running", text);
  document.getElementById("toasts").append(element);
  return {
    element,
    say(operation) {
      const { done = 0, total = 0, text: words = "" } = operation.progress || {};
      const bar = total > 0 ? h("progress", { max: total, value: done, "aria-label": words || text }) : null;
      fill(operation.state === "queued" ? "queued" : "running", text, ...[words && h("div", { class: "toast-more" }, words), bar].filter(Boolean));
    },
    end(words, ...more) {
      fill("done", words, ...more);
      setTimeout(() => element.remove(), GOOD_MS);
    },
    fail(problem, words = text) {
      element.setAttribute("role", "alert");
      fill("failed", h("b", {}, words), h("div", { class: "toast-more" }, ...explained(problem)));
    },
  };
}

// Returns a problem as elements: what happened, which fields, and what to do.
export function explained(problem) {
  const fields = (problem.errors || []).map(({ field, detail }) => h("li", {}, field ? h("code", {}, field) : null, field ? ": " : "", detail));
  return [
    h("p", {}, problem.message),
    fields.length ? h("ul", {}, ...fields) : null,
    problem.hint ? h("p", { class: "hint" }, problem.hint) : null,
  ].filter(Boolean);
}

// Does what an element's data attributes say, with a toast; returns the result, or undefined.
export async function act(element, body) {
  const { method, path, confirm, done, undoMethod, undoPath, undoBody } = element.dataset;
  const title = element.dataset.title || element.textContent.trim();
  const danger = element.classList.contains("danger");
  if (confirm && !(await confirmed(confirm, { title: `${title}?`, yes: title, danger }))) return undefined;
  const shown = toast(`${title} …`);
  element.setAttribute("aria-busy", "true");
  try {
    const result = await perform(method, path, body, (operation) => shown.say(operation));
    shown.end(done || `${title}: done`, ...undo(undoMethod, undoPath, undoBody, shown));
    document.dispatchEvent(new CustomEvent("edgewake:done", { detail: { path, result } }));
    return result ?? {};
  } catch (problem) {
    shown.fail(problem, `${title}: that did not work`);
    return undefined;
  } finally {
    element.removeAttribute("aria-busy");
  }
}

function undo(method, path, body, shown) {
  if (!method) return [];
  const button = h("button", { class: "button", type: "button", "data-method": method, "data-path": path, "data-title": "Undo", click: () => {
    shown.element.remove();
    act(button, body ? JSON.parse(body) : undefined);
  } }, "Undo");
  return [h("div", { class: "toast-more" }, button)];
}

// Returns a form's fields as JSON: empty ones are left out; data-type says number, list, or pairs
// (a line each, such as to=r2).
export function valuesOf(form) {
  const values = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || field.type === "submit") continue;
    if (field.type === "radio" && !field.checked) continue;
    const value = typed(field);
    if (value === undefined) continue;
    if (field.dataset.type === "list") values[field.name] = [...(values[field.name] || []), ...value];
    else values[field.name] = value;
  }
  return values;
}

function typed(field) {
  if (field.dataset.type === "list" && field.type === "checkbox") return field.checked ? [field.value] : [];
  if (field.type === "checkbox") return field.checked;
  if (field.value === "") return undefined;
  if (field.dataset.type === "pairs") return pairs(field.value);
  if (field.dataset.type === "list") return field.value.split(/[\s,]+/).filter(Boolean);
  return field.dataset.type === "number" ? Number(field.value) : field.value;
}

const pairs = (text) => Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => {
  const at = line.indexOf("=");
  return at < 0 ? [line.trim(), ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}));

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button || button.getAttribute("aria-busy")) return;
  act(button, button.dataset.body ? JSON.parse(button.dataset.body) : undefined);
});
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-action]");
  if (!form) return;
  event.preventDefault();
  const submit = form.querySelector('[type="submit"]');
  if (!submit || submit.getAttribute("aria-busy")) return;
  for (const key of ["method", "confirm", "done"]) {
    if (form.dataset[key] !== undefined) submit.dataset[key] = form.dataset[key];
  }
  const values = valuesOf(form);
  const path = form.dataset.path.replace(/\{(\w+)\}/g, (_, name) => {
    const value = encodeURIComponent(values[name] ?? "");
    delete values[name];
    return value;
  });
  submit.dataset.path = path;
  act(submit, values);
});
