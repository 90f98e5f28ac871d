// Pages that show how things are: fresh whenever something changed, or something happened.

import { keepFresh } from "./fresh.js";

keepFresh("status", "event");
