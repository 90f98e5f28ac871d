// The lab file: numbered lines, a check before anything is applied, and mistakes at their line.

import { confirmed, explained, perform, toast } from "./actions.js";
import { h, state } from "./dom.js";
import { keepFresh } from "./fresh.js";

keepFresh("status");

const form = document.getElementById("lab");
if (form) edit(form);

function edit(lab) {
  const text = lab.elements.namedItem("text");
  const gutter = document.getElementById("gutter");
  const said = document.getElementById("lab-said");
  const apply = document.getElementById("apply");
  let tag = null; // of the lab that was shown, so that nobody else's change is undone unseen

  fetch("/api/v1/lab").then(async (answer) => {
    if (answer.ok && String((await answer.json()).number) === lab.dataset.number) tag = answer.headers.get("ETag");
  }, () => {});

  const number = (wrong = 0) => {
    const lines = text.value.split("\n").length;
    const all = Array.from({ length: lines }, (_, index) => index + 1);
    gutter.replaceChildren(...all.flatMap((line) => [line === wrong ? h("span", { class: "wrong" }, String(line)) : String(line), "\n"]));
    gutter.scrollTop = text.scrollTop;
  };
  const stale = () => {
    apply.disabled = true;
    apply.title = "check it first";
    said.replaceChildren();
    text.removeAttribute("aria-invalid");
    number();
  };
  const body = () => ({ text: text.value, path: lab.elements.namedItem("path").value });

  text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
  lab.addEventListener("input", stale);
  lab.addEventListener("reset", () => setTimeout(stale));
  lab.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.replaceChildren(h("p", { class: "muted" }, "Checking …"));
    try {
      const result = await perform("PUT", "/lab?dry_run=1", body());
      said.replaceChildren(h("div", { class: "notice" }, h("p", {}, state("done", "It can be applied."), " ", result.summary || ""), changes(result)));
      apply.disabled = false;
      apply.title = "";
    } catch (problem) {
      fail(problem);
    }
  });
  apply.addEventListener("click", async () => {
    if (!(await confirmed("The lab becomes what is written here. What it does not have ends. You can go back to the version before.", { title: "Apply?", yes: "Apply" }))) return;
    const shown = toast("Applying the lab …");
    try {
      await perform("PUT", "/lab", body(), (operation) => shown.say(operation), tag ? { "If-Match": tag } : {});
      shown.end("The lab is applied");
      location.reload();
    } catch (problem) {
      shown.fail(problem, "The lab was not applied");
      fail(problem);
    }
  });

  function fail(problem) {
    const { line, field } = problem.document;
    said.replaceChildren(h("div", { class: "notice failed" }, h("p", {}, state("failed", line ? `Line ${line}` : "It cannot be applied"), field ? h("code", {}, ` ${field}`) : null), ...explained(problem)));
    if (!line) return;
    number(line);
    const before = text.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    text.setAttribute("aria-invalid", "true");
    text.focus();
    text.setSelectionRange(before, before + (text.value.split("\n")[line - 1] ?? "").length);
    const height = parseFloat(getComputedStyle(text).lineHeight) || 20;
    text.scrollTop = Math.max(0, (line - 5) * height);
  }
  number();
}

function changes(result) {
  const list = result.changes.map((change) => h("li", {}, `${change.do} ${change.instance || change.service} on ${change.host}`, change.why ? ` (${change.why})` : ""));
  const not = Object.entries(result.unguarded).map(([host, why]) => h("li", {}, `${host}: ${why}`));
  return h("div", {}, list.length ? h("ul", {}, list) : h("p", { class: "muted" }, "No instance has to end or move."), not.length ? h("ul", {}, not) : null);
}
