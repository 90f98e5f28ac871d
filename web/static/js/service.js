// One service: fresh when something changed; its console as it grows; what to do once it is deleted,
// here or by somebody else.

import { keepFresh, refresh } from "./fresh.js";
import { on } from "./live.js";

const EVERY_MS = 1500; // between two looks at the console
const NEAR_PX = 24; // from its end, where somebody is taken to follow

const main = document.getElementById("service");
const { service } = main.dataset;
const changed = document.getElementById("changed");
const howChanged = document.getElementById("changed-how");
const deletes = document.getElementById("delete"); // there for admins only
const console_ = document.getElementById("console");
const follow = document.getElementById("follow");
let following = true;
let gone = false; // as we have seen ourselves

keepFresh("status", "event");
on("wake", (wake) => {
  if (wake.service === service) refresh();
});

async function look() {
  if (!following || main.inert || document.hidden || deletes?.getAttribute("aria-busy") === "true") return;
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

// It may be deleted by others, and come back; what was last seen of it stays to be read.
document.addEventListener("edgewake:gone", () => {
  gone = true;
  if (!main.inert) {
    howChanged.textContent = "is gone: the lab that is in use does not have it any more.";
    document.getElementById("undo")?.setAttribute("hidden", ""); // we do not know of what
    changed.hidden = false;
    leave();
  }
});
document.addEventListener("edgewake:fresh", () => {
  if (gone) location.reload();
});

// Lets nothing be done any more with what is gone.
function leave() {
  main.inert = true;
  follow.disabled = true;
  for (const button of document.querySelectorAll("#delete, #rollback")) button.disabled = true;
}

// What was changed for good can be undone: the answer names the version of the lab to go back to.
document.addEventListener("edgewake:done", ({ detail }) => {
  if (detail.path === "/lab/rollback") return location.reload();
  if (!detail.result?.undo) return undefined;
  const isDelete = deletes?.dataset.path === detail.path;
  const undo = document.getElementById("undo");
  undo.dataset.body = JSON.stringify({ version: detail.result.undo });
  undo.hidden = false;
  howChanged.textContent = isDelete ? "is deleted." : `is as it was in version ${detail.result.like ?? "?"} of the lab.`;
  changed.hidden = false;
  if (isDelete) leave();
  return undo.focus();
});
