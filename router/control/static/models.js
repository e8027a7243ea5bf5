// The list of models: what each is and does, and what an operator can do about it.

import { ACTIONS, act } from "./actions.js";
import { colourOf } from "./devices.js";
import { nothingFits, nothingRuns, noModels } from "./empty.js";
import { openLog } from "./log.js";
import { bar, byId, keep, make, mark, pairs, setBar, write } from "./nodes.js";
import { bytes, context, left, many, span } from "./words.js";

const FILTER_FROM = 8; // fewer models than this need no filter

const TONES = {
  ready: "good", starting: "busy", waiting: "busy", draining: "warn", stopping: "warn", backoff: "bad", failed: "bad",
  stopped: "idle", unusable: "warn", endpoint: "far",
};
const MOVING = new Set(["starting", "waiting", "draining", "stopping"]);
const DOWN = new Set(["backoff", "failed"]);
const SERVES = new Set(["ready", "draining"]);
const GROUPS = [
  ["down", "Need attention"], ["active", "Active"], ["available", "Ready to load"],
  ["elsewhere", "At other servers"], ["unusable", "Cannot run here"],
];

// A stopped model that somebody asks for is not at rest: it waits for memory.
export const stateOf = (model) => (model.state === "stopped" && model.waiting ? "waiting" : model.state);

// Its last start, or its last run, ended in an error, and nothing has gone well since.
function isDown(model) {
  if (DOWN.has(model.state)) return true;
  return model.state === "stopped" && model.last_error !== null && model.last_error.incarnation === model.incarnation;
}

function groupOf(model) {
  const state = stateOf(model);
  if (state === "endpoint") return "elsewhere";
  if (state === "unusable") return "unusable";
  if (isDown(model)) return "down";
  return state === "stopped" ? "available" : "active";
}

const VERBS = {
  stopped: ["load"], waiting: ["cancel"], starting: ["cancel"], ready: ["unload"], draining: ["force"],
  stopping: ["force"], backoff: ["retry"], failed: ["retry"],
};

function actionsOf(model) {
  const state = stateOf(model);
  const verbs = VERBS[state] || [];
  if (!verbs.length) return [];
  if (model.pinned) return ["unpin", ...verbs];
  return model.pid === null ? verbs : ["pin", ...verbs];
}

function tagsOf(model) {
  const tags = [];
  if (model.pinned) tags.push("pinned");
  if (model.state !== "endpoint") tags.push(model.engine);
  if (model.size_bytes) tags.push(bytes(model.size_bytes));
  if (model.context_length) tags.push(context(model.context_length));
  tags.push(...model.capabilities.map((word) => word.replaceAll("_", " ")));
  if (model.state === "endpoint") tags.push(model.source);
  if (model.aliases.length) tags.push(`also ${model.aliases.join(", ")}`);
  return tags;
}

function idleOf(model) {
  if (model.idle_seconds === null) return ["–"];
  if (model.pinned) return [span(model.idle_seconds), "stays: pinned"];
  const stays = model.keep_alive_seconds ?? (model.ttl_seconds || -1);
  if (stays < 0) return [span(model.idle_seconds), "stays"];
  return [span(model.idle_seconds), `stops in ${left(Math.max(0, stays - model.idle_seconds))}`];
}

function numbersOf(model, now) {
  const { measured_bytes: measured, reserved_bytes: reserved } = model.memory;
  const speed = model.tokens_per_second;
  const up = model.since !== null && model.state === "ready" ? span(Math.max(0, now - model.since)) : "–";
  const memory = measured === null
    ? ["Memory", reserved ? bytes(reserved) : "–", reserved ? "reserved" : ""]
    : ["Memory", bytes(measured), `of ${bytes(reserved)}`, "Measured, of what is reserved for it"];
  const process = ["Process", model.pid === null ? "–" : String(model.pid), model.port === null ? "" : `port ${model.port}`];
  const queue = [
    ["In flight", String(model.in_flight), model.in_flight ? `oldest ${span(model.oldest_request_seconds)}` : ""],
    ["Waiting", String(model.waiting), model.waiting ? `for ${span(model.oldest_wait_seconds)}` : ""],
  ];
  if (!SERVES.has(model.state)) return model.pid === null ? [queue[1]] : [...queue, memory, process];
  return [
    ...queue,
    ["Tokens/s", speed === null ? "–" : speed.toFixed(speed < 100 ? 1 : 0), "", "How fast one answer comes, over the last 32"],
    memory,
    ["Idle", ...idleOf(model)],
    ["Requests", many(model.requests), "", "Since the daemon started"],
    ["Up", up, model.starts > 1 ? `start ${model.starts}` : "", model.starts ? `Started ${model.starts} times by this daemon` : null],
    process,
  ];
}

// -- one model --------------------------------------------------------------------------------------

function build() {
  const row = make("article", "model");
  const title = make("div", "title");
  const about = make("div", "about");
  about.append(make("h4", "name"), make("div", "tags"));
  title.append(make("span", "pill"), about, make("div", "actions"));
  row.append(title, make("div", "body"));
  return row;
}

function update(row, model, now) {
  const [pill, about, actions] = row.firstChild.children;
  const [name, tags] = about.children;
  const state = stateOf(model);
  write(pill, state);
  mark(pill, "data-tone", TONES[state] || "idle");
  mark(pill, "data-moving", MOVING.has(state) ? "" : null);
  write(name, model.id);
  mark(name, "title", model.source);
  keep(tags, tagsOf(model), (tag) => tag, (tag) => make("span", tag === "pinned" ? "pinned" : "", tag));
  updateActions(actions, model);
  const parts = ["doing", ...(model.pid || model.waiting ? ["numbers"] : []), "trouble"];
  keep(row.lastChild, parts, (part) => part, (part) => make(part === "numbers" ? "dl" : "div", part), (node, part) => {
    PARTS[part](node, model, now);
  });
}

function updateActions(box, model) {
  const wanted = [...(model.has_log ? ["log"] : []), ...actionsOf(model)];
  // Cancel takes the place of Load, and Unpin of Pin: the button stays, and a keyboard's focus with it.
  const place = (name) => (name === "log" ? "log" : name.endsWith("pin") ? "pin" : "main");
  keep(box, wanted, place, (name) => {
    const button = make("button");
    button.type = "button";
    button.addEventListener("click", () => {
      const { name: doing, model: which } = button.what;
      if (doing === "log") openLog(which.id, button);
      else act(button, doing, which);
    });
    return button;
  }, (button, name) => {
    button.what = { name, model };
    const { label, main, danger, tip } = ACTIONS[name] || { label: "Log" };
    write(button, label);
    mark(button, "data-main", main ? "" : null);
    mark(button, "data-danger", danger ? "" : null);
    mark(button, "title", tip);
    mark(button, "aria-label", `${label} ${model.id}`);
  });
}

// What it is doing, without what the bar beside it says better.
function noteOf(model) {
  if (model.state !== "starting") return model.note;
  const [, rest] = model.note.split(/: (.*)/s);
  return rest || (model.waiting ? "loading for the requests that wait" : "loading");
}

const PARTS = {
  doing(node, model) {
    const retry = model.retry_in_seconds;
    const down = DOWN.has(model.state) && retry !== null;
    const said = noteOf(model) || (down ? `next start allowed ${retry ? `in ${left(retry)}` : "now"}; the button starts it at once` : "");
    node.hidden = !said;
    if (node.hidden) return;
    if (!node.firstChild) {
      const line = make("p");
      line.append(make("span"), make("span"));
      node.append(line, bar("Progress", null));
    }
    const [line, track] = node.children;
    write(line.firstChild, said);
    const rest = [];
    if (model.progress !== null) rest.push(`${Math.round(model.progress * 100)} %`);
    if (model.eta_seconds !== null) rest.push(model.eta_seconds > 0 ? `about ${left(model.eta_seconds)} left` : "any moment");
    write(line.lastChild, rest.join(" · "));
    track.hidden = model.state !== "starting";
    setBar(track, `Loading ${model.id}`, model.progress, "var(--busy)");
  },

  numbers(node, model, now) {
    pairs(node, numbersOf(model, now));
    for (const cell of node.children) {
      mark(cell, "data-zero", ["0", "–"].includes(cell.children[1].textContent) ? "" : null);
      const held = cell.dataset.key === "Memory" && model.memory.devices.length;
      mark(cell, "data-colour", held ? colourOf(model.id) : null);
    }
  },

  trouble(node, model, now) {
    const error = model.last_error;
    node.hidden = !model.problem && !error;
    if (node.hidden) return;
    const over = !model.problem && !isDown(model);
    mark(node, "data-tone", model.problem ? "warn" : over ? "idle" : "bad");
    mark(node, "data-over", over ? "" : null);
    if (!node.firstChild) node.append(make("strong"), make("span", "remedy"), make("span", "meta"));
    const [head, remedy, meta] = node.children;
    const crashes = error && model.crashes > 1 ? ` · ${model.crashes} crashes lately` : "";
    const ago = error ? `${span(Math.max(0, now - error.at))} ago` : "";
    write(head, model.problem ? "" : over ? `Last error, ${ago}: ${error.cause}` : error.cause);
    write(remedy, model.problem ? model.problem.message : over || !error.remedy ? "" : `What to do: ${error.remedy}`);
    write(meta, model.problem || over ? "" : `${error.code} · ${ago}${crashes}`);
    mark(node, "title", over ? error.remedy : null);
    for (const part of node.children) part.hidden = !part.textContent;
  },
};

// -- all of them ------------------------------------------------------------------------------------

export function renderModels(status, session) {
  const held = document.activeElement.closest(".model")?.dataset.key;
  place(status, session);
  // A model that changes its group is moved, and loses the focus: give it back.
  if (held && document.activeElement === document.body) {
    const row = [...document.querySelectorAll(".model")].find((one) => one.dataset.key === held);
    (row?.querySelector(".actions button:last-child") || byId("models")).focus({ preventScroll: true });
  }
}

function fits(model, words) {
  const text = [model.id, model.engine, stateOf(model), ...model.aliases, ...tagsOf(model)].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function place(status, session) {
  const filter = byId("filter");
  filter.parentElement.hidden = status.models.length < FILTER_FROM && !filter.value;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = status.models.filter((model) => fits(model, words)).sort((a, b) => a.id.localeCompare(b.id));
  write(byId("shown"), words.length ? `${shown.length} of ${status.models.length}` : "");
  const groups = GROUPS
    .map(([name, label]) => ({ name, label, models: shown.filter((model) => groupOf(model) === name) }))
    .filter((group) => group.models.length);
  const box = byId("groups");
  if (!groups.length) {
    keep(box, [words.length ? "nothing" : "none"], (what) => what, words.length ? nothingFits : noModels);
    return;
  }
  if (!words.length && !groups.some((group) => ["active", "down"].includes(group.name))) {
    groups.unshift({ name: "quiet", models: [] });
  }
  // What to type depends on the session, which may be learned later.
  const key = (group) => (group.name === "quiet" ? `quiet ${Boolean(session?.keys)}` : group.name);
  keep(box, groups, key, (group) => {
    if (group.name === "quiet") return nothingRuns(status, session);
    return section(group);
  }, (node, group) => {
    if (group.name === "quiet") return;
    write(node.firstChild.firstChild, `${group.label} `);
    write(node.firstChild.lastChild, String(group.models.length));
    if (words.length && !node.open) node.open = true;
    keep(node.lastChild, group.models, (model) => model.id, build, (row, model) => update(row, model, status.at));
  });
}

// What cannot run here is folded away: with a full hub cache it is the longest list and the least asked for.
function section(group) {
  const node = make("details", `group ${group.name}`);
  node.open = group.name !== "unusable";
  const head = make("summary");
  head.append(make("h3"), make("span", "count"));
  node.append(head, make("div", "card list"));
  return node;
}
