// Long lists to which something is added at the top as it happens: bounded, and with a button that
// holds them still. What comes while a list is held is shown when it is let go.
//
//   const list = liveList({ rows, most: 100, make: (item) => <tr>, key: (item) => item.id });
//   on("queries", (items) => list.add(items));

const HELD_MOST = 2000; // items kept while a list is held; the oldest are let go

// `key`, if given, says which items are the same thing: a later one takes the place of its row, which
// has that as data-KEY by `attribute`. `shown` is called after each change with the number of rows.
export function liveList({ rows, most, make, key, attribute, button, shown = () => {} }) {
  let waiting = [];
  let drawing = false;
  let held = false;

  const place = (item) => {
    const row = make(item);
    const known = key && rows.querySelector(`tr[${attribute}="${CSS.escape(String(key(item)))}"]`);
    if (known) {
      if (!known.contains(document.activeElement)) known.replaceWith(row);
      else keepFocus(known, row);
    } else if (!key || newer(rows, attribute, key(item))) {
      rows.prepend(row);
    }
  };
  const draw = () => {
    drawing = false;
    for (const item of waiting.slice(-most)) place(item);
    waiting = [];
    while (rows.rows.length > most) rows.lastElementChild.remove();
    shown(rows.rows.length);
  };
  const soon = () => {
    if (drawing || held) return;
    drawing = true;
    requestAnimationFrame(draw);
  };
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      held = !held;
      button.setAttribute("aria-pressed", String(held));
      button.textContent = held ? "Go on" : "Pause";
      soon();
    });
  }
  return {
    add(items) {
      for (const item of items) {
        const same = key ? waiting.findIndex((other) => key(other) === key(item)) : -1;
        if (same >= 0) waiting[same] = item;
        else waiting.push(item);
      }
      if (waiting.length > HELD_MOST) waiting.splice(0, waiting.length - HELD_MOST);
      if (held) button.textContent = `Go on (${waiting.length} new)`;
      soon();
    },
  };
}

// Whether a number is above all that are shown: an older one that is not shown was let go before.
function newer(rows, attribute, number) {
  const first = rows.firstElementChild?.getAttribute(attribute);
  return first === null || first === undefined || Number(number) > Number(first);
}

function keepFocus(old, fresh) {
  const place = [...old.querySelectorAll("a")].indexOf(document.activeElement);
  old.replaceWith(fresh);
  fresh.querySelectorAll("a")[place]?.focus({ preventScroll: true });
}
