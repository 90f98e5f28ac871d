// Amounts and times as people read them, in the words of web/pages/formats.py.

const NOTHING = "–";
const CLOCK = [[86400, 3600, "d", "h"], [3600, 60, "h", "min"], [60, 1, "min", "s"]];
const NIL = 5e-5; // what is less is shown as 0
const THIN = "\u202f";
const none = (value) => value === null || value === undefined || Number.isNaN(value);

function short(value) {
  const amount = Math.abs(value);
  if (amount < NIL) return "0";
  if (amount >= 99.95) return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, THIN);
  if (amount >= 9.995) return value.toFixed(1).replace(/\.0$/, "");
  if (amount < 0.0995) return String(Number(value.toPrecision(2)));
  return value.toFixed(2).replace(/\.?0+$/, "");
}

export function size(bytes) {
  if (none(bytes)) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = bytes;
  while (Math.abs(amount) >= 1024 && units.length > 1) {
    amount /= 1024;
    units.shift();
  }
  return `${short(amount)} ${units[0]}`;
}

export const mib = (value) => (none(value) ? NOTHING : size(value * 1048576));

export function seconds(value) {
  if (none(value)) return NOTHING;
  if (Math.abs(value) < 0.9995) return `${short(value * 1000)} ms`;
  if (Math.abs(value) < 59.95) return `${short(value)} s`;
  const whole = Math.round(value);
  const [unit, part, name, below] = CLOCK.find(([size]) => whole >= size) ?? CLOCK.at(-1);
  const rest = Math.floor((whole % unit) / part);
  return `${Math.floor(whole / unit)} ${name}${rest ? ` ${rest} ${below}` : ""}`;
}

export const milliseconds = (value) => (none(value) ? NOTHING : seconds(value / 1000));
export const count = (value) => (none(value) ? NOTHING : short(value));
export const percent = (share) => (none(share) ? NOTHING : `${short(share * 100)} %`);

// Returns a time of day; with its date unless it is today.
export function when(epoch) {
  if (none(epoch)) return NOTHING;
  const at = new Date(epoch * 1000);
  const clock = at.toLocaleTimeString([], { hour12: false });
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock : `${at.toLocaleDateString()} ${clock}`;
}

// Returns how long ago a time was, or how far ahead it is.
export function ago(epoch) {
  const passed = Date.now() / 1000 - epoch;
  if (Math.abs(passed) < 5) return "just now";
  const [unit, part, name, below] = CLOCK.find(([size]) => Math.abs(passed) >= size) ?? [1, 1, "s", ""];
  const rest = unit > 60 ? Math.floor((Math.abs(passed) % unit) / part) : 0;
  const told = `${Math.floor(Math.abs(passed) / unit)} ${name}${rest ? ` ${rest} ${below}` : ""}`;
  return passed < 0 ? `in ${told}` : `${told} ago`;
}

// Shows the times that the server wrote (`<time data-at>`) as this browser's clock has them, and how
// long ago they were (`data-ago`).
export function localTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-at]")) {
    const at = Number(element.dataset.at);
    const text = when(at);
    if (element.textContent !== text) element.textContent = text;
    element.title = new Date(at * 1000).toISOString();
  }
  for (const element of root.querySelectorAll("[data-ago]")) {
    const text = `(${ago(Number(element.dataset.ago))})`;
    if (element.textContent !== text) element.textContent = text;
  }
}
