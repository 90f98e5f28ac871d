// The network's pages: loads change all the time, with no message that says so.

import { keepFresh, refresh } from "./fresh.js";

const EVERY_MS = 3000;

keepFresh("status", "event");
setInterval(refresh, EVERY_MS);
