// What is measured: asked for again after wakes and sleeps, not more often than it can change.

import { refresh } from "./fresh.js";

const EVERY_MS = 10000; // hypervisors are asked each time

setInterval(refresh, EVERY_MS);
