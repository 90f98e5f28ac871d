// The live stream: `on("wake", (document) => …)`. Topics are those of /events: event, wake,
// queries, operation, status, and gap, which says that some were missed: ask anew.
//
// All tabs of a browser share one stream, since a browser opens few connections to one server: the
// tab that holds the lock listens, and tells the others. Without a stream all pages work; they say
// that they are not live.

const TOPICS = ["event", "wake", "queries", "operation", "status", "gap"];
const WORDS = {
  connecting: ["s-off", "connecting", "waiting for the stream of changes"],
  live: ["s-live", "live", "changes are shown as they happen"],
  retrying: ["s-retrying", "reconnecting", "the stream broke off; it is being opened again"],
  off: ["s-off", "not live", "changes are not shown by themselves: load the page again"],
};
const LOCK = "edgewake-live";

const listeners = new Map(TOPICS.map((topic) => [topic, new Set()]));
const others = "BroadcastChannel" in globalThis ? new BroadcastChannel(LOCK) : null;
let state = "off";
let leads = false;
let began = false;

// Calls `listener(data)` for each message of a topic; returns what ends that.
export function on(topic, listener) {
  listeners.get(topic).add(listener);
  begin();
  return () => listeners.get(topic).delete(listener);
}

export const isLive = () => state === "live";

function tell(topic, data) {
  for (const listener of listeners.get(topic)) {
    try {
      listener(data);
    } catch (error) {
      console.error(`a listener of ${topic} failed`, error);
    }
  }
}

function show(next) {
  const before = state;
  state = next;
  const element = document.getElementById("live");
  if (element && element.dataset.state !== next) {
    const [symbol, text, title] = WORDS[next];
    element.dataset.state = next;
    element.title = title;
    element.querySelector("use").setAttribute("href", `#${symbol}`);
    element.querySelector("span").textContent = text;
  }
  if (next === "live" && before === "retrying") tell("gap", {});
  if (leads) others?.postMessage({ state: next });
}

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("open", () => show("live"));
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return show("retrying");
    show("off"); // refused (logged out, or no such stream): try again, seldom
    setTimeout(listen, 15000);
  });
  for (const topic of TOPICS) {
    source.addEventListener(topic, ({ data }) => {
      const document = parsed(data);
      tell(topic, document);
      others?.postMessage({ topic, data: document });
    });
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return {};
  }
}

function lead() {
  leads = true;
  show(state === "live" ? "retrying" : "connecting");
  listen();
}

function follow({ data }) {
  if (leads) {
    if (data.ask) others.postMessage({ state });
  } else if (data.state) {
    show(data.state);
  } else if (data.topic) {
    tell(data.topic, data.data);
  }
}

export function begin() {
  if (began || !document.getElementById("live") || !("EventSource" in globalThis)) return;
  began = true;
  if (!others || !navigator.locks) return lead();
  show("connecting");
  others.addEventListener("message", follow);
  others.postMessage({ ask: true });
  navigator.locks.request(LOCK, () => {
    lead();
    return new Promise(() => {}); // held as long as this page lives
  });
}
