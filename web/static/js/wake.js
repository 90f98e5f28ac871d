// One wake: while it is under way, and just after, the page follows it.

import { refresh } from "./fresh.js";
import { on } from "./live.js";

const page = document.getElementById("wake");

on("wake", (wake) => {
  if (String(wake.id) === page.dataset.wake) refresh();
});
on("gap", refresh);
