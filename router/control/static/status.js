// The status page: asks /api/status once a second and keeps the page in step with the answer.

import { renderModels } from "./models.js";
import { bar, byId, keep, make, mark, pairs, setBar, write } from "./nodes.js";
import { bytes, clock, many, span, tell } from "./words.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

function renderTop(status) {
  write(byId("version"), status.version);
  const health = byId("health");
  write(health, status.stopping ? "stopping" : status.ready ? "serving" : "not ready");
  mark(health, "data-tone", status.stopping ? "warn" : status.ready ? "good" : "bad");
  const facts = [["listens on", status.listen.join(", ")], ["up", span(status.uptime_seconds)], ["pid", String(status.pid)]];
  if (status.loop_lag_seconds > 0.1) facts.push(["lag", `${status.loop_lag_seconds.toFixed(2)} s`]);
  pairs(byId("facts"), facts);
  const active = status.models.filter((model) => model.pid).length;
  const waiting = status.models.filter((model) => model.waiting).length;
  const { served, refused, failed, client_gone: gone, prompt_tokens: prompt, completion_tokens: completion } = status.requests;
  const trouble = [failed && `${many(failed)} failed`, refused && `${many(refused)} refused`].filter(Boolean).join(", ");
  pairs(byId("totals"), [
    ["Models running", String(active), `of ${status.models.length}`],
    ["In flight", String(status.in_flight)],
    ["Waiting", String(status.waiting), waiting ? `for ${waiting} model${waiting > 1 ? "s" : ""}` : ""],
    ["Requests served", many(served), trouble, `${failed} failed, ${refused} refused, ${gone} left by their clients`],
    ["Tokens generated", many(completion), prompt ? `from ${many(prompt)} read` : ""],
  ]);
  const loaded = status.in_flight ? `(${status.in_flight}) ` : "";
  document.title = `${loaded}modelyard`;
  alarm(status.not_ready_because && status.models.length ? `Not ready: ${status.not_ready_because}` : "", "warn");
}

function renderDevices(status) {
  const box = byId("devices");
  if (!status.devices.length) {
    keep(box, ["none"], (what) => what, () => make("p", "aside-empty", "No memory pool is known."));
    return;
  }
  keep(box, status.devices, (device) => device.id, (device) => {
    const card = make("div", "device");
    const head = make("div", "head");
    head.append(make("span", "", device.id), make("span", "", device.name));
    card.append(head, gauge("What instances were promised, of what they may have in all"), gauge("Measured, of everything on the device"));
    return card;
  }, (card, device) => {
    const [, reserved, used] = card.children;
    setGauge(reserved, "Reserved", device.reserved_bytes, device.budget_bytes, "budget", "var(--accent)");
    used.hidden = device.used_bytes === null;
    if (device.used_bytes !== null) {
      const tight = device.used_bytes / device.total_bytes > 0.95;
      setGauge(used, "In use", device.used_bytes, device.total_bytes, "", tight ? "var(--bad)" : "var(--dim)");
    }
  });
}

function gauge(tip) {
  const box = make("div", "gauge");
  box.title = tip;
  const line = make("p");
  line.append(make("span"), make("b"));
  box.append(line, bar("", 0));
  return box;
}

function setGauge(box, label, value, whole, word, fill) {
  const [line, track] = box.children;
  write(line.firstChild, label);
  write(line.lastChild, `${bytes(value)} of ${bytes(whole)}${word ? ` ${word}` : ""}`);
  setBar(track, label, whole ? value / whole : 0, value > whole ? "var(--bad)" : fill);
}

function renderEvents(status) {
  const list = byId("events");
  if (!status.recent_events.length) {
    keep(list, ["none"], (what) => what, () => make("li", "aside-empty", "Nothing has happened yet."));
    return;
  }
  keep(list, status.recent_events, (event) => event.id, (event) => {
    const line = make("li");
    const [what, tone] = tell(event);
    const when = make("time", "", clock(event.at));
    when.dateTime = new Date(event.at * 1000).toISOString();
    mark(line, "data-tone", tone || null);
    line.append(when, make("span", "who", event.model), make("span", "what", what));
    return line;
  });
}

function alarm(text, tone) {
  const box = byId("alarm");
  box.hidden = !text;
  write(box, text);
  mark(box, "data-tone", tone);
}

// -- keeping in step --------------------------------------------------------------------------------

let latest = null;
let lastAnswer = 0;
let timer = null;
let asking = false;

async function ask() {
  const response = await fetch("/api/status", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

async function refresh() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    latest = await ask();
    lastAnswer = Date.now();
  } catch {
    lost();
    return;
  } finally {
    asking = false;
    timer = setTimeout(refresh, EVERY_MS);
  }
  byId("page").classList.remove("stale");
  mark(byId("page"), "aria-busy", null);
  renderTop(latest);
  renderModels(latest);
  renderDevices(latest);
  renderEvents(latest);
}

function lost() {
  const since = lastAnswer ? ` The last answer came ${span((Date.now() - lastAnswer) / 1000)} ago.` : "";
  alarm(`The daemon does not answer; trying again.${since}`, "bad");
  mark(byId("health"), "data-tone", "bad");
  write(byId("health"), "no answer");
  byId("page").classList.add("stale");
}

byId("filter").addEventListener("input", () => { if (latest) renderModels(latest); });
document.addEventListener("visibilitychange", refresh);
document.addEventListener("acted", refresh);
refresh();
