// The status page: keeps in step with the daemon's stream of changes, and ages what it knows once a second.

import { OURS, complain, hush } from "./actions.js";
import { renderDevices } from "./devices.js";
import { renderEvents } from "./events.js";
import { closeLog, escapeLog, pauseLog, prepareLog } from "./log.js";
import { renderModels } from "./models.js";
import { byId, make, mark, pairs, write } from "./nodes.js";
import { now, takeChange, takeWhole } from "./picture.js";
import { Stream } from "./stream.js";
import { many, span } from "./words.js";

let session = null;
let loss = null; // {again, message} while the connection is lost
let ended = ""; // why the daemon talks to us no more, until somebody logs in
let drawn = false;

// -- what is above the models -----------------------------------------------------------------------

function renderTop(status) {
  write(byId("version"), status.version);
  const facts = [["listens on", status.listen.join(", ")], ["up", span(status.uptime_seconds)], ["pid", String(status.pid)]];
  if (status.default_model) facts.push(["default model", status.default_model]);
  const lag = `${Math.round(status.loop_lag_seconds * 1000)} ms`;
  facts.push(["loop lag", lag, "", "How late the event loop was at worst in the last minute: that long, requests waited for other work"]);
  pairs(byId("facts"), facts);
  const active = status.models.filter((model) => model.pid).length;
  const waiting = status.models.filter((model) => model.waiting);
  const longest = Math.max(0, ...waiting.map((model) => model.oldest_wait_seconds));
  const oldest = Math.max(0, ...status.models.map((model) => model.oldest_request_seconds));
  const { served, refused, failed, client_gone: gone, prompt_tokens: prompt, completion_tokens: completion } = status.requests;
  const trouble = [failed && `${many(failed)} failed`, refused && `${many(refused)} refused`].filter(Boolean).join(", ");
  pairs(byId("totals"), [
    ["Models running", String(active), `of ${status.models.length}`],
    ["In flight", String(status.in_flight), status.in_flight ? `oldest ${span(oldest)}` : ""],
    ["Waiting", String(status.waiting), status.waiting ? `for ${span(longest)}` : ""],
    ["Requests/s", status.requests_per_second.toFixed(1), "", "That ended, over the last 10 seconds"],
    ["Requests served", many(served), trouble, `${failed} failed, ${refused} refused, ${gone} left by their clients`],
    ["Tokens generated", many(completion), prompt ? `from ${many(prompt)} read` : ""],
  ]);
}

function renderHealth(status) {
  const [word, tone] = loss ? ["no connection", "bad"]
    : ended ? ["logged out", "warn"]
    : !status ? ["connecting", "idle"]
    : status.stopping ? ["stopping", "warn"]
    : status.ready ? ["serving", "good"] : ["not ready", "bad"];
  const health = byId("health");
  write(health, word);
  mark(health, "data-tone", tone);
  byId("page").classList.toggle("stale", Boolean(loss || ended));
  const busy = status?.in_flight ? `(${status.in_flight}) ` : "";
  document.title = `${loss ? "No connection · " : busy}modelyard`;
  alarm(...alarmOf(status));
}

function alarmOf(status) {
  if (ended) return [ended, "warn", "Log in"];
  if (loss) {
    // Not the seconds to go: whoever has this read out would hear them counted.
    const said = loss.message ? `The daemon says: ${loss.message}.` : "Connection lost.";
    return [`${said} Trying again …`, "bad"];
  }
  if (status && !status.ready && status.models.length) return [`Not ready: ${status.not_ready_because}`, "warn"];
  if (status && status.configuration.error) return [`The changed configuration is not in force: ${status.configuration.error}`, "warn"];
  return ["", ""];
}

function alarm(text, tone, link = "") {
  const box = byId("alarm");
  box.hidden = !text;
  if (box.dataset.said === text + link) return;
  box.dataset.said = text + link;
  mark(box, "data-tone", tone);
  box.replaceChildren(make("span", "", text));
  if (link) {
    const away = make("a", "button", link);
    away.href = "/login";
    box.append(away);
  }
}

function renderSession() {
  const box = byId("session");
  box.hidden = !(session?.keys && session.by_cookie);
  if (!box.hidden) write(box.firstElementChild, session.key);
}

function render() {
  const status = now();
  renderHealth(status);
  if (!status) return;
  if (!drawn) {
    drawn = true;
    mark(byId("page"), "aria-busy", null);
  }
  renderTop(status);
  renderDevices(status);
  renderModels(status, session);
  renderEvents(status);
}

// -- keeping in step --------------------------------------------------------------------------------

const TAKE = { status: takeWhole, change: takeChange };

const stream = new Stream("/api/status/stream", {
  event(kind, data) {
    if (kind === "end") loss = { message: data.reason };
    TAKE[kind]?.(data);
    render();
  },
  open() {
    loss = null;
    ended = "";
    render();
    learnSession();
  },
  lost(what) {
    // What the daemon said when it went is truer than that it is not there.
    loss = { ...what, message: what.message || loss?.message };
    render();
  },
  refused(status, message) {
    loss = null;
    ended = status === 401 ? "Your session has ended: log in again to go on." : message;
    closeLog();
    render();
  },
});

async function learnSession() {
  try {
    const response = await fetch("/api/session");
    if (response.ok) session = await response.json();
  } catch {
    return; // the stream is the one that tells of a lost connection
  }
  renderSession();
}

async function logOut() {
  try {
    const response = await fetch("/logout", { method: "POST", headers: OURS, redirect: "manual" });
    if (response.type === "opaqueredirect") location.assign("/login");
    else complain("Log out", (await response.json()).error.message);
  } catch {
    complain("Log out", "the daemon does not answer");
  }
}

// -- keys and clicks --------------------------------------------------------------------------------

function writes(node) {
  return node.matches("input, textarea, select") && !["checkbox", "button"].includes(node.type);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("confirm").open) return;
  if (event.key === "/" && !writes(event.target)) {
    const field = event.target.closest("#log") ? byId("log-search") : byId("filter");
    if (!field.checkVisibility()) return;
    event.preventDefault();
    field.focus();
    field.select();
  } else if (event.key === "Escape") {
    const filter = byId("filter");
    if (event.target === filter) {
      filter.value = "";
      filter.blur();
      render();
    } else if (!hush()) escapeLog();
  }
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  // A page nobody looks at costs the daemon nothing.
  pauseLog(document.hidden);
  if (document.hidden) stream.close();
  else stream.open();
});
byId("filter").addEventListener("input", render);
byId("log-out").addEventListener("click", logOut);
prepareLog();
setInterval(() => { if (!document.hidden) render(); }, 1000);
stream.open();
