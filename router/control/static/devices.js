// Who has what of each device's memory: one bar per device, one part per model.

import { byId, keep, make, mark, write } from "./nodes.js";
import { bytes, share } from "./words.js";

const COLOURS = 8;
const colours = new Map();

// A model keeps its colour for as long as the page is open; after eight they come round again.
export function colourOf(id) {
  if (!colours.has(id)) colours.set(id, colours.size % COLOURS);
  return colours.get(id);
}

// What lies on a device: models from the left, then what is free, then everybody else. Pure.
export function partsOf(device, models) {
  const held = [];
  for (const model of models) {
    const has = model.memory.devices.find((one) => one.device === device.id);
    if (has) held.push({ id: model.id, reserved: has.reserved_bytes, measured: has.measured_bytes });
  }
  const measured = held.reduce((sum, one) => sum + (one.measured ?? 0), 0);
  const taken = held.reduce((sum, one) => sum + Math.max(one.reserved, one.measured ?? 0), 0);
  const other = device.used_bytes === null ? null : Math.max(0, device.used_bytes - measured);
  const free = Math.max(0, device.total_bytes - taken - (other ?? 0));
  return { held, other, free, whole: Math.max(device.total_bytes, taken + (other ?? 0)) || 1 };
}

export function renderDevices(status) {
  const box = byId("devices");
  if (!status.devices.length) {
    keep(box, ["none"], (what) => what, () => make("p", "card hint", "No memory pool is known."));
    return;
  }
  keep(box, status.devices, (device) => device.id, build, (card, device) => update(card, device, status.models));
}

function build() {
  const card = make("article", "card device");
  const head = make("div", "head");
  const what = make("div"), sum = make("div", "sum");
  what.append(make("h3"), make("span", "dim"));
  sum.append(make("i", "swatch"), make("span"));
  mark(sum.firstChild, "data-colour", "budget");
  head.append(what, sum);
  const bar = make("div", "stack");
  bar.setAttribute("aria-hidden", "true"); // the legend says the same in words
  bar.append(make("div", "held"), make("i", "other"), make("i", "budget"));
  card.append(head, bar, make("ul", "legend"));
  return card;
}

function update(card, device, models) {
  const [head, bar, legend] = card.children;
  const [what, sum] = head.children;
  const [name, kind] = what.children;
  const { held, other, free, whole } = partsOf(device, models);
  write(name, device.id);
  write(kind, device.name);
  write(sum.lastChild, `${share(device.reserved_bytes, device.budget_bytes)} budget reserved`);
  mark(sum, "title", "What models were promised, of what modelyard may promise on this device (its budget)");

  const [stack, rest, budget] = bar.children;
  keep(stack, held, (one) => one.id, () => {
    const part = make("i", "part");
    part.append(make("b"));
    return part;
  }, (part, one) => {
    const most = Math.max(one.reserved, one.measured ?? 0);
    mark(part, "data-colour", colourOf(one.id));
    part.style.setProperty("--part", most / whole);
    part.firstChild.style.setProperty("--part", most ? (one.measured ?? 0) / most : 0);
    mark(part, "title", `${one.id}: ${said(one)}`);
  });
  rest.style.setProperty("--part", (other ?? 0) / whole);
  mark(rest, "title", `Other programs: ${bytes(other)}`);
  budget.style.setProperty("--at", Math.min(1, device.budget_bytes / whole));
  mark(budget, "title", `Budget: ${bytes(device.budget_bytes)}`);

  const rows = held.map((one) => ({ key: `m ${one.id}`, colour: colourOf(one.id), label: one.id, value: said(one) }));
  if (other !== null) rows.push({ key: "other", colour: "other", label: "Other programs", value: bytes(other) });
  rows.push({ key: "free", colour: "free", label: "Free", value: share(free, device.total_bytes) });
  keep(legend, rows, (row) => row.key, (row) => {
    const item = make("li");
    item.append(make("i", "swatch"), make("span", row.key.startsWith("m ") ? "mono" : ""), make("b"));
    return item;
  }, (item, row) => {
    mark(item.children[0], "data-colour", row.colour);
    write(item.children[1], row.label);
    write(item.children[2], row.value);
  });
}

function said({ measured, reserved }) {
  return measured === null ? `${bytes(reserved)} reserved` : share(measured, reserved);
}
