// Colours: as the device says, light or dark. Runs before the page is drawn, so it is no module.
"use strict";
{
  const KEY = "edgewake-theme";
  const CHOICES = ["auto", "light", "dark"];
  const WORDS = { auto: "as this device says", light: "light", dark: "dark" };

  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is forbidden: the choice lasts as long as the page
    }
  };

  const show = (choice) => {
    document.documentElement.dataset.theme = choice;
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    button.setAttribute("aria-label", `Colours: ${WORDS[choice]}`);
    button.title = `Colours: ${WORDS[choice]}`;
    button.querySelector("use").setAttribute("href", `#i-theme-${choice}`);
    document.dispatchEvent(new CustomEvent("edgewake:theme", { detail: choice }));
  };

  let choice = CHOICES.includes(kept()) ? kept() : "auto";
  show(choice);
  document.addEventListener("DOMContentLoaded", () => {
    show(choice);
    document.getElementById("theme")?.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      show(choice);
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // as above
      }
    });
  });
}
