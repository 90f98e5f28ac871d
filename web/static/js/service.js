// One service: fresh when something changed; its console as it grows; what to do once it is deleted.

import { keepFresh, refresh } from "./fresh.js";
import { on } from "./live.js";

const EVERY_MS = 1500; // between two looks at the console
const NEAR_PX = 24; // from its end, where somebody is taken to follow

const { service } = document.getElementById("service").dataset;
const console_ = document.getElementById("console");
const follow = document.getElementById("follow");
let following = true;

keepFresh("status", "event");
on("wake", (wake) => {
  if (wake.service === service) refresh();
});

async function look() {
  if (!following || document.hidden) return;
  const answer = await fetch(console_.dataset.path).catch(() => null);
  if (!answer?.ok || !answer.headers.get("Content-Type")?.startsWith("text/plain")) return;
  const text = await answer.text();
  if (text === console_.textContent) return;
  const atEnd = console_.scrollHeight - console_.scrollTop - console_.clientHeight < NEAR_PX;
  console_.textContent = text;
  if (atEnd) console_.scrollTop = console_.scrollHeight;
}

follow.hidden = false;
follow.addEventListener("click", () => {
  following = !following;
  follow.setAttribute("aria-pressed", String(following));
  look();
});
console_.scrollTop = console_.scrollHeight;
setInterval(look, EVERY_MS);

// What was changed for good can be undone: the answer names the version of the lab to go back to.
document.addEventListener("edgewake:done", ({ detail }) => {
  if (detail.path === "/lab/rollback") return location.reload();
  if (!detail.result?.undo) return undefined;
  const gone = document.getElementById("delete")?.dataset.path === detail.path;
  const undo = document.getElementById("undo");
  undo.dataset.body = JSON.stringify({ version: detail.result.undo });
  document.getElementById("changed-how").textContent = gone ? "is deleted." : `is as it was in version ${detail.result.like ?? "?"} of the lab.`;
  document.getElementById("changed").hidden = false;
  document.getElementById("service").inert = gone;
  return undo.focus();
});
