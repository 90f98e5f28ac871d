// Tokens: the text of a new one is shown once, here and nowhere else.

import { explained, perform, valuesOf } from "./actions.js";
import { h, state } from "./dom.js";
import { keepFresh, refresh } from "./fresh.js";

keepFresh();

const form = document.getElementById("create");
const made = document.getElementById("made");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector('[type="submit"]');
  if (button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  try {
    const token = await perform("POST", "/tokens", valuesOf(form));
    made.replaceChildren(shown(token));
    form.reset();
    refresh();
  } catch (problem) {
    made.replaceChildren(h("div", { class: "notice failed" }, state("failed", "No token was made"), ...explained(problem)));
  } finally {
    button.removeAttribute("aria-busy");
  }
});

function shown(token) {
  const secret = h("code", { "data-testid": "secret", tabindex: "0" }, token.token);
  const copy = h("button", { class: "button", type: "button", "data-testid": "copy", click: async () => {
    try {
      await navigator.clipboard.writeText(token.token);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(secret);
      copy.textContent = "Selected: copy it";
    }
  } }, "Copy");
  return h("div", { class: "notice" },
    h("p", {}, state("done", `${token.name}, ${token.role}`), " This is its text. It is shown once: nobody can have it again."),
    h("div", { class: "secret" }, secret, copy));
}
