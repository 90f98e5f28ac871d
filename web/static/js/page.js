// What every page has: its actions, its times in local time, and whether it is live.

import "./actions.js";
import { localTimes } from "./format.js";
import { begin } from "./live.js";
import { labelCells } from "./tables.js";

localTimes();
labelCells();
setInterval(localTimes, 10000);
begin();
document.querySelector('.nav [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "center" });
