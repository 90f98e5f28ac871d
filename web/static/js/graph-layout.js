// Where things are drawn: a pure function of the graph's structure, so that it never jumps.
//
// A group is a site, or a router outside of all sites, with what hangs on it. Groups are placed so
// that distances on the page are like those along links (stress majorisation from a fixed start),
// then pushed apart until none overlap. Inside, rows: routers, hosts, populations.

export const HOST_W = 168;
const HEAD_H = 34; // of a host's card
const SLOT_H = 21;
const DOT = 20;
const GAP = 14;
const SPACE = 52; // between groups, for the label of a link
const FLAT = [0.4, 0.8]; // how much wider than high, or higher than wide
const ROUTER_W = 92;
const ROW_H = 58;
const ROUNDS = 120;

// Returns how instances are drawn in a host: two columns with names, or dots if there are many.
export function slots(count) {
  if (count <= 12) return { columns: 2, rows: Math.ceil(count / 2), named: true };
  const columns = Math.floor((HOST_W - 12) / DOT);
  return { columns, rows: Math.ceil(count / columns), named: false };
}

export function hostHeight(count) {
  const { rows, named } = slots(count);
  return HEAD_H + Math.max(1, rows) * (named ? SLOT_H : DOT) + 8;
}

// Returns the place of instance `index` of `count` on a host's card, relative to its centre.
export function slotOf(index, count, height) {
  const { columns, named } = slots(count);
  const column = index % columns;
  const row = Math.floor(index / columns);
  const top = -height / 2 + HEAD_H;
  if (named) return { x: -HOST_W / 2 + 14 + column * (HOST_W / 2 - 4), y: top + row * SLOT_H + SLOT_H / 2 };
  return { x: -HOST_W / 2 + 6 + DOT / 2 + column * DOT, y: top + row * DOT + DOT / 2 };
}

// Returns the inside of a group: its size, and where its members are, relative to its centre.
export function inside(group) {
  const rows = [];
  const perRow = Math.max(1, Math.ceil(Math.sqrt(group.hosts.length * 0.9)));
  rows.push(...wrapped(group.routers.map((each) => [each.id, ROUTER_W, ROW_H]), Math.max(perRow * 2, 3)));
  rows.push(...wrapped(group.hosts.map((each) => [each.id, HOST_W, hostHeight(each.slots)]), perRow));
  rows.push(...wrapped(group.populations.map((each) => [each.id, ROUTER_W, ROW_H]), Math.max(perRow * 2, 3)));
  const width = Math.max(ROUTER_W, ...rows.map((row) => row.width)) + 2 * GAP;
  const height = Math.max(ROW_H, rows.reduce((sum, row) => sum + row.height + GAP, -GAP)) + 2 * GAP;
  const places = new Map();
  let y = -height / 2 + GAP;
  for (const row of rows) {
    let x = -row.width / 2;
    for (const [id, w, h] of row.items) {
      places.set(id, { x: x + w / 2, y: y + (row.level ? row.height / 2 : h / 2) });
      x += w + GAP;
    }
    y += row.height + GAP;
  }
  return { width, height, places };
}

function wrapped(items, perRow) {
  const rows = [];
  for (let at = 0; at < items.length; at += perRow) {
    const part = items.slice(at, at + perRow);
    rows.push({
      items: part,
      width: part.reduce((sum, [, w]) => sum + w + GAP, -GAP),
      height: Math.max(...part.map(([, , h]) => h)),
    });
  }
  return rows;
}

// Returns where groups are: `boxes` are {id, width, height}, `pairs` those that links join. The long
// side lies, or stands where the page is higher than wide: `aspect` is its width by its height.
export function arrange(boxes, pairs, aspect = 1.6) {
  if (!boxes.length) return new Map();
  const index = new Map(boxes.map((box, at) => [box.id, at]));
  const near = boxes.map(() => new Set());
  for (const [a, b] of pairs) {
    if (a === b || !index.has(a) || !index.has(b)) continue;
    near[index.get(a)].add(index.get(b));
    near[index.get(b)].add(index.get(a));
  }
  const hops = boxes.map((_, at) => hopsFrom(at, near));
  const points = spread(hops, boxes);
  turn(points);
  const flat = Math.min(FLAT[1], Math.max(FLAT[0], 1.2 * Math.min(aspect, 1 / aspect)));
  for (const point of points) {
    if (aspect < 1) [point.x, point.y] = [-point.y * flat, point.x];
    else point.y *= flat;
  }
  return separate(new Map(boxes.map((box, at) => [box.id, points[at]])), boxes);
}

// Returns places that are no nearer than boxes allow: those of before, pushed apart where need be.
export function separate(places, boxes) {
  const points = boxes.map((box) => ({ ...places.get(box.id) }));
  apart(points, boxes);
  return new Map(boxes.map((box, at) => [box.id, points[at]]));
}

const spaceOf = (boxes) => (boxes.length > 20 ? SPACE / 2 : SPACE);

function hopsFrom(start, near) {
  const hops = new Array(near.length).fill(Infinity);
  hops[start] = 0;
  const queue = [start];
  for (const at of queue) {
    for (const next of near[at]) {
      if (hops[next] === Infinity) {
        hops[next] = hops[at] + 1;
        queue.push(next);
      }
    }
  }
  return hops;
}

function spread(hops, boxes) {
  const n = boxes.length;
  const reach = boxes.map((box) => Math.hypot(box.width, box.height) / 2);
  const mean = reach.reduce((sum, each) => sum + each, 0) / n;
  const gap = spaceOf(boxes);
  const longest = Math.max(1, ...hops.flat().filter(Number.isFinite));
  const wanted = (i, j) => {
    const steps = Number.isFinite(hops[i][j]) ? hops[i][j] : Math.min(longest + 1, Math.ceil(Math.sqrt(n)) + 1);
    return steps === 1 ? reach[i] + reach[j] + gap : reach[i] + reach[j] + gap + (steps - 1) * (mean * 1.3 + gap);
  };
  // The start: a circle in the order of a walk from the first, so that neighbours are neighbours.
  const order = hops[0].map((steps, at) => [steps, at]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const points = new Array(n);
  order.forEach(([, at], place) => {
    const angle = (2 * Math.PI * place) / n;
    points[at] = { x: Math.cos(angle) * mean * n * 0.5, y: Math.sin(angle) * mean * n * 0.4 };
  });
  const rounds = Math.max(12, Math.min(ROUNDS, Math.round(12e6 / (n * n + 1))));
  for (let round = 0; round < rounds; round++) settle(points, wanted);
  return points;
}

function settle(points, wanted) {
  const n = points.length;
  for (let i = 0; i < n; i++) {
    let sum = 0;
    let x = 0;
    let y = 0;
    for (let j = 0; j < n; j++) {
      if (i === j) continue;
      const far = wanted(i, j);
      const weight = 1 / (far * far);
      const dx = points[i].x - points[j].x;
      const dy = points[i].y - points[j].y;
      const is = Math.hypot(dx, dy) || 1;
      x += weight * (points[j].x + (far * dx) / is);
      y += weight * (points[j].y + (far * dy) / is);
      sum += weight;
    }
    if (sum) points[i] = { x: x / sum, y: y / sum };
  }
}

// Turns all so that the long side lies.
function turn(points) {
  const n = points.length;
  const cx = points.reduce((sum, p) => sum + p.x, 0) / n;
  const cy = points.reduce((sum, p) => sum + p.y, 0) / n;
  let xx = 0;
  let yy = 0;
  let xy = 0;
  for (const p of points) {
    xx += (p.x - cx) ** 2;
    yy += (p.y - cy) ** 2;
    xy += (p.x - cx) * (p.y - cy);
  }
  const angle = -0.5 * Math.atan2(2 * xy, xx - yy);
  points.forEach((p, at) => {
    const dx = p.x - cx;
    const dy = p.y - cy;
    points[at] = { x: dx * Math.cos(angle) - dy * Math.sin(angle), y: dx * Math.sin(angle) + dy * Math.cos(angle) };
  });
  if (n > 1 && points[0].x > 0) points.forEach((p, at) => (points[at] = { x: -p.x, y: p.y }));
}

function apart(points, boxes) {
  const space = spaceOf(boxes) * 0.8;
  for (let round = 0; round < 80; round++) {
    let moved = false;
    for (let i = 0; i < boxes.length; i++) {
      for (let j = i + 1; j < boxes.length; j++) {
        const dx = points[j].x - points[i].x;
        const dy = points[j].y - points[i].y;
        const overX = (boxes[i].width + boxes[j].width) / 2 + space - Math.abs(dx);
        const overY = (boxes[i].height + boxes[j].height) / 2 + space - Math.abs(dy);
        if (overX <= 0.5 || overY <= 0.5) continue;
        moved = true;
        if (overX < overY) push("x", overX / 2, dx < 0 ? -1 : 1, points[i], points[j]);
        else push("y", overY / 2, dy < 0 ? -1 : 1, points[i], points[j]);
      }
    }
    if (!moved) return;
  }
}

function push(axis, by, sign, a, b) {
  a[axis] -= sign * by;
  b[axis] += sign * by;
}
