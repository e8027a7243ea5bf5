// Building the page: nodes are kept by key, so that focus, selection and scrolling survive each refresh.
// Whatever comes from outside goes in as text (textContent), never as markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

// Make the children of `parent` be one per item, in order; `build` makes one, `update` brings it up to date.
export function keep(parent, items, key, build, update) {
  const old = new Map();
  for (const child of [...parent.children]) {
    if (child.dataset.key === undefined) child.remove();
    else old.set(child.dataset.key, child);
  }
  let previous = null;
  for (const item of items) {
    const name = String(key(item));
    let node = old.get(name);
    if (node) old.delete(name);
    else {
      node = build(item);
      node.dataset.key = name;
    }
    const place = previous ? previous.nextSibling : parent.firstChild;
    if (place !== node) parent.insertBefore(node, place);
    if (update) update(node, item);
    previous = node;
  }
  for (const node of old.values()) node.remove();
}

// A list of [term, value, note] as dt/dd pairs.
export function pairs(list, rows) {
  keep(list, rows, (row) => row[0], (row) => {
    const box = make("div");
    box.append(make("dt", "", row[0]), make("dd"));
    return box;
  }, (box, [, value, note, tip]) => {
    const cell = box.children[1];
    const wanted = note ? `${value} ${note}` : value;
    if (cell.textContent !== wanted) {
      cell.textContent = value;
      if (note) cell.append(" ", make("small", "", note));
    }
    mark(box, "title", tip);
  });
}

export function bar(label, part, fill) {
  const track = make("div", "track");
  track.setAttribute("role", "meter");
  track.setAttribute("aria-valuemin", "0");
  track.setAttribute("aria-valuemax", "100");
  track.append(make("i"));
  setBar(track, label, part, fill);
  return track;
}

export function setBar(track, label, part, fill) {
  const known = part !== null && part !== undefined && Number.isFinite(part);
  const share = known ? Math.min(1, Math.max(0, part)) : 0;
  mark(track, "aria-label", label);
  mark(track, "aria-valuenow", known ? Math.round(share * 100) : 0);
  mark(track, "data-unknown", known ? null : "");
  track.firstChild.style.setProperty("--part", share);
  track.firstChild.style.setProperty("--fill", fill || "var(--accent)");
}
