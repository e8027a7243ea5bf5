// What an operator does to a model, and what is said about it.

import { byId, make, mark, write } from "./nodes.js";

// A page of another origin cannot send this header: the daemon asks for it where a session speaks for us.
export const OURS = { "X-Requested-With": "modelyard" };

export const pathOf = (id) => `/api/models/${encodeURIComponent(id)}`;

export const ACTIONS = {
  load: { label: "Load", path: "load?wait=0", main: true, said: "is loading" },
  retry: { label: "Try again", path: "load?wait=0&retry=1", main: true, said: "is tried again" },
  cancel: { label: "Cancel", path: "unload?wait=0", said: "is not loaded after all" },
  unload: { label: "Unload", path: "unload?wait=0", said: "is unloaded as soon as its requests are done" },
  force: { label: "Stop now", path: "unload?wait=0&force=1", danger: true, said: "is stopped" },
  pin: { label: "Pin", path: "pin", tip: "Keep it in memory, whoever else wants it", said: "is pinned" },
  unpin: { label: "Unpin", path: "unpin", tip: "Let it be stopped again", said: "is no longer pinned" },
};

// What would be lost, in words; "" when nothing would.
export function loses(name, model) {
  const answers = model.in_flight === 1 ? "the answer that is being given" : `the ${model.in_flight} answers that are being given`;
  const waiting = model.waiting === 1 ? "the request that waits" : `the ${model.waiting} requests that wait`;
  const lost = [];
  if (name === "force" && model.in_flight) lost.push(`cuts ${answers}`);
  if (["force", "unload", "cancel"].includes(name) && model.waiting) lost.push(`refuses ${waiting} for it`);
  return lost.length ? `This ${lost.join(" and ")}.` : "";
}

export async function act(button, name, model) {
  if (button.hasAttribute("aria-busy")) return;
  const action = ACTIONS[name];
  const loss = loses(name, model);
  if (loss && !(await confirmed(`${action.label}: ${model.id}`, loss, action.label))) return;
  mark(button, "aria-busy", "true");
  try {
    const response = await fetch(`${pathOf(model.id)}/${action.path}`, { method: "POST", headers: OURS });
    if (response.ok) murmur(`${model.id} ${action.said}`);
    else complain(`${action.label} ${model.id}`, (await response.json()).error.message, response.status === 401);
  } catch {
    complain(`${action.label} ${model.id}`, "the daemon does not answer");
  } finally {
    mark(button, "aria-busy", null);
  }
}

// -- saying -----------------------------------------------------------------------------------------

// Success can be seen where it happens, so it is only said to those who listen.
function murmur(text) {
  write(byId("murmur"), "");
  requestAnimationFrame(() => write(byId("murmur"), text));
}

export function complain(title, text, ended = false) {
  const box = byId("complaint");
  const close = make("button", "", "Close");
  close.type = "button";
  close.addEventListener("click", hush);
  const words = make("p");
  words.append(make("strong", "", title), " ", text);
  box.replaceChildren(words);
  if (ended) {
    const link = make("a", "button", "Log in");
    link.href = "/login";
    box.append(link);
  }
  box.append(close);
  box.hidden = false;
}

export function hush() {
  const box = byId("complaint");
  const was = !box.hidden;
  box.hidden = true;
  box.replaceChildren();
  return was;
}

// -- asking -----------------------------------------------------------------------------------------

function confirmed(title, text, yes) {
  const dialog = byId("confirm");
  const [heading, words, buttons] = dialog.children;
  const [no, go] = buttons.children;
  write(heading, title);
  write(words, text);
  write(go, yes);
  return new Promise((resolve) => {
    dialog.returnValue = "";
    no.onclick = () => dialog.close("");
    go.onclick = () => dialog.close("yes");
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}
