// The list of models: what each is and does, and what an operator can do about it.

import { bar, byId, keep, make, mark, pairs, setBar, write } from "./nodes.js";
import { bytes, context, many, short, span } from "./words.js";

const FILTER_FROM = 8; // fewer models than this need no filter
const SAID_MS = 8000;

const TONES = {
  ready: "good", starting: "busy", draining: "warn", stopping: "warn", backoff: "warn", failed: "bad",
  stopped: "idle", unusable: "bad", endpoint: "far",
};
const MOVING = new Set(["starting", "draining", "stopping"]);
const GROUPS = [
  ["active", "Active"], ["available", "Ready to load"], ["elsewhere", "At other servers"], ["unusable", "Cannot run here"],
];

function groupOf(model) {
  if (model.state === "endpoint") return "elsewhere";
  if (model.state === "unusable") return "unusable";
  return model.state === "stopped" && !model.waiting ? "available" : "active";
}

function actionsOf(model) {
  switch (model.state) {
    case "stopped": return [["Load", "load?wait=0", { main: true }]];
    case "backoff": case "failed": return [["Retry now", "load?wait=0&retry=1", { main: true }]];
    case "starting": return [["Cancel", "unload?wait=0", {}]];
    case "ready": return [["Unload", "unload?wait=0", {}]];
    case "draining": return [["Stop now", "unload?wait=0&force=1", { danger: true, confirm: true }]];
    default: return [];
  }
}

function tagsOf(model) {
  const tags = [];
  if (model.state !== "endpoint") tags.push(model.engine);
  if (model.size_bytes) tags.push(bytes(model.size_bytes));
  if (model.context_length) tags.push(context(model.context_length));
  tags.push(...model.capabilities.map((word) => word.replaceAll("_", " ")));
  if (model.pinned) tags.push("pinned");
  if (model.state === "endpoint") tags.push(model.source);
  return tags;
}

function numbersOf(model) {
  const memory = model.memory;
  const measured = memory.measured_bytes !== null;
  const stays = model.pinned || model.ttl_seconds === 0;
  const left = Math.max(0, model.ttl_seconds - model.idle_seconds);
  const idle = model.idle_seconds === null ? ["–"] : [span(model.idle_seconds), stays ? "stays" : `stops in ${short(left)}`];
  return [
    measured
      ? ["Memory", bytes(memory.measured_bytes), `of ${bytes(memory.reserved_bytes)}`, "Measured, of what is reserved for it"]
      : ["Memory", bytes(memory.reserved_bytes), "reserved", "Not measured yet"],
    ["In flight", String(model.in_flight)],
    ["Waiting", String(model.waiting), model.waiting ? `for ${short(model.oldest_wait_seconds)}` : ""],
    ["Idle", ...idle],
    ["Requests", many(model.requests)],
    ["Port", String(model.port ?? "–")],
    ["Process", String(model.pid ?? "–")],
  ];
}

function buildModel() {
  const row = make("article", "model");
  const title = make("div", "title");
  const about = make("div", "about");
  about.append(make("span", "name"), make("div", "tags"));
  title.append(make("span", "pill"), about, make("div", "actions"));
  row.append(title, make("div", "body"));
  return row;
}

function updateModel(row, model, now) {
  const [pill, about, actions] = row.firstChild.children;
  const [name, tags] = about.children;
  write(pill, model.state);
  mark(pill, "data-tone", TONES[model.state] || "idle");
  mark(pill, "data-moving", MOVING.has(model.state) ? "" : null);
  write(name, model.id);
  mark(name, "title", model.aliases.length ? `also ${model.aliases.join(", ")}` : model.source);
  keep(tags, tagsOf(model), (tag) => tag, (tag) => make("span", "", tag));
  updateActions(actions, model);
  const parts = ["doing", ...(model.pid || model.waiting ? ["numbers"] : []), "trouble"];
  keep(row.lastChild, parts, (part) => part, (part) => make(part === "numbers" ? "dl" : "div", part), (node, part) => {
    PARTS[part](node, model, now);
  });
}

function updateActions(box, model) {
  const wanted = actionsOf(model).map(([label, path, how]) => ({ label, path, how }));
  if (model.has_log) wanted.unshift({ label: "Log", href: `${pathOf(model.id)}/logs?tail=500` });
  keep(box, wanted, (one) => one.label, (one) => {
    if (one.href) {
      const link = make("a", "", one.label);
      link.target = "_blank";
      link.rel = "noopener";
      return link;
    }
    const button = make("button", "", one.label);
    button.type = "button";
    mark(button, "data-main", one.how.main ? "" : null);
    mark(button, "data-danger", one.how.danger ? "" : null);
    button.addEventListener("click", () => act(button, model.id, one));
    return button;
  }, (node, one) => {
    mark(node, "aria-label", `${one.label}: ${model.id}`);
    if (one.href) mark(node, "href", one.href);
  });
}

const PARTS = {
  doing(node, model) {
    const retry = model.retry_in_seconds;
    let said = model.note;
    if (!said && retry !== null && model.state !== "ready") said = `next try allowed in ${short(retry)}`;
    node.hidden = !said && model.state !== "starting";
    if (node.hidden) return;
    if (!node.firstChild) {
      const line = make("p");
      line.append(make("span"), make("span"));
      node.append(line, bar("Progress", null));
    }
    const [line, track] = node.children;
    write(line.firstChild, said || "starting");
    const left = [];
    if (model.progress !== null) left.push(`${Math.round(model.progress * 100)} %`);
    if (model.eta_seconds !== null) left.push(`about ${short(model.eta_seconds)} left`);
    write(line.lastChild, left.join(" · "));
    track.hidden = model.state !== "starting";
    setBar(track, `Loading ${model.id}`, model.progress, "var(--busy)");
  },

  numbers(node, model) {
    const { measured_bytes: measured, reserved_bytes: reserved } = model.memory;
    pairs(node, numbersOf(model));
    const box = node.firstChild;
    if (!box.querySelector(".track")) box.append(bar("", 0));
    const part = reserved ? (measured || 0) / reserved : 0;
    setBar(box.lastChild, `Memory of ${model.id}`, part, part > 1 ? "var(--warn)" : "var(--accent)");
    for (const cell of node.children) mark(cell, "data-zero", ["0", "–"].includes(cell.children[1].textContent) ? "" : null);
  },

  trouble(node, model, now) {
    const error = model.last_error;
    node.hidden = !model.problem && !error;
    if (node.hidden) return;
    const over = !model.problem && model.state === "ready";
    mark(node, "data-tone", model.problem ? "warn" : over ? "idle" : "bad");
    mark(node, "data-over", over ? "" : null);
    if (!node.firstChild) node.append(make("strong"), make("span", "remedy"), make("span", "meta"));
    const [head, remedy, meta] = node.children;
    const crashes = error && model.crashes > 1 ? ` · ${model.crashes} crashes lately` : "";
    const ago = error ? `${span(Math.max(0, now - error.at))} ago` : "";
    write(head, model.problem ? "" : over ? `Last error, ${ago}: ${error.cause}` : error.cause);
    write(remedy, model.problem ? model.problem.message : over ? "" : error.remedy);
    write(meta, model.problem || over ? "" : `${error.code} · ${ago}${crashes}`);
    mark(node, "title", over ? error.remedy : null);
    for (const part of node.children) part.hidden = !part.textContent;
  },
};

function pathOf(id) {
  return `/api/models/${encodeURIComponent(id)}`;
}

export function renderModels(status) {
  const held = document.activeElement.closest(".model")?.dataset.key;
  placeModels(status);
  // A model that changes state changes its place and its button: a keyboard's focus goes along.
  if (held && document.activeElement === document.body) {
    const row = [...document.querySelectorAll(".model")].find((one) => one.dataset.key === held);
    (row?.querySelector("button, a") || byId("models")).focus({ preventScroll: true });
  }
}

function placeModels(status) {
  const filter = byId("filter");
  filter.hidden = status.models.length < FILTER_FROM && !filter.value;
  const wanted = filter.value.trim().toLowerCase();
  const shown = status.models.filter((model) => {
    return !wanted || [model.id, model.engine, model.state, ...model.aliases].join(" ").toLowerCase().includes(wanted);
  }).sort((a, b) => a.id.localeCompare(b.id));
  const groups = GROUPS
    .map(([name, label]) => ({ name, label, models: shown.filter((model) => groupOf(model) === name) }))
    .filter((group) => group.models.length);
  const box = byId("groups");
  if (!groups.length) {
    keep(box, [wanted ? "nothing" : "none"], (what) => what, wanted ? nothingFits : noModels);
    return;
  }
  if (!wanted && !groups.some((group) => group.name === "active")) groups.unshift({ name: "quiet", models: [] });
  keep(box, groups, (group) => group.name, (group) => {
    if (group.name === "quiet") return nothingRuns(status);
    const section = make("div", "group");
    section.append(make("h3"), make("div", "card list"));
    return section;
  }, (section, group) => {
    if (group.name === "quiet") return;
    write(section.firstChild, `${group.label} (${group.models.length})`);
    keep(section.lastChild, group.models, (model) => model.id, buildModel, (row, model) => {
      updateModel(row, model, status.at);
    });
  });
}

function empty(title, ...content) {
  const box = make("div", "card empty");
  box.append(make("strong", "", title), ...content);
  return box;
}

function nothingFits() {
  return empty("No model fits the filter", make("p", "", "Clear it to see them all."));
}

function noModels() {
  return empty(
    "No models yet",
    make("p", "", "modelyard serves what is in the Hugging Face cache and what its configuration names. Download one:"),
    make("pre", "", "hf download Qwen/Qwen3-0.6B"),
    make("p", "", "or name one in modelyard.yaml, and start modelyard again:"),
    make("pre", "", "models:\n  qwen3:\n    source: Qwen/Qwen3-0.6B"),
  );
}

function nothingRuns(status) {
  const usable = status.models.filter((model) => model.state === "stopped" && model.capabilities.includes("generate"));
  usable.sort((a, b) => (a.size_bytes ?? Infinity) - (b.size_bytes ?? Infinity));
  const example = status.default_model || usable[0]?.id;
  const box = empty("Nothing is loaded", make("p", "", "A model starts with the first request for it, or with its Load button."));
  if (example) {
    const request = JSON.stringify({ model: example, messages: [{ role: "user", content: "Hello!" }] });
    const body = request.replaceAll("'", "'\\''"); // it is meant to be pasted into a shell
    box.append(make("pre", "", `curl ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`));
  }
  const group = make("div", "group");
  group.append(box);
  return group;
}

// -- what an operator does --------------------------------------------------------------------------

let silence = null;

function say(text) {
  clearTimeout(silence);
  write(byId("said"), text);
  if (text) silence = setTimeout(() => write(byId("said"), ""), SAID_MS);
}

async function act(button, id, { label, path, how }) {
  if (button.hasAttribute("aria-busy")) return;
  if (how.confirm && !window.confirm(`Stop ${id} now? The answers it is giving will be cut.`)) return;
  mark(button, "aria-busy", "true");
  try {
    const response = await fetch(`${pathOf(id)}/${path}`, { method: "POST" });
    const answer = await response.json();
    say(response.ok ? `${label} ${id}: under way` : `${label} ${id}: ${answer.error.message}`);
  } catch {
    say(`${label} ${id}: the daemon does not answer`);
  } finally {
    mark(button, "aria-busy", null);
    document.dispatchEvent(new Event("acted"));
  }
}
