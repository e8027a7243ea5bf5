// The log of one model as it grows, in a panel at the foot of the page.

import { pathOf } from "./actions.js";
import { byId, make, mark, write } from "./nodes.js";
import { Stream } from "./stream.js";

const TAIL = 500;
const MOST_LINES = 3000; // what a page scrolls through without stuttering; the whole file is behind "As text"
const NEAR_END = 24; // pixels: as good as at the end
const BAD = /\b(error|exception|traceback|critical|fatal|killed|out of memory)\b/i;
const WARNS = /\b(warn|warning)\b/i;
const COLOURS = /\x1b\[[0-9;?]*[A-Za-z]/g; // what engines write to terminals

let stream = null;
let opened = null; // the model
let opener = null; // the button that gets the focus back
let wanted = ""; // the search, in lower case
let follows = true;
let missed = 0; // matching lines that came while not following

export const shownLog = () => opened;

export function openLog(id, button) {
  opener = button;
  if (opened === id) {
    byId("lines").focus({ preventScroll: true });
    return;
  }
  stream?.close();
  opened = id;
  byId("log").hidden = false;
  document.body.classList.add("with-log");
  write(byId("log-title"), id);
  mark(byId("log"), "aria-label", `Log of ${id}`);
  byId("log-text").href = `${pathOf(id)}/logs?tail=10000`;
  byId("lines").replaceChildren();
  follow(true);
  count();
  state("connecting …");
  stream = new Stream(`${pathOf(id)}/logs?follow=1&format=events&tail=${TAIL}`, {
    event: (_, data) => append(data.lines),
    open: () => state(""),
    lost: ({ message }) => state(message || "connection lost, trying again"),
    refused: (_, message) => state(message),
  });
  stream.open();
  byId("lines").focus({ preventScroll: true });
}

export function closeLog() {
  if (opened === null) return false;
  stream.close();
  stream = opened = null;
  byId("log").hidden = true;
  document.body.classList.remove("with-log");
  byId("lines").replaceChildren();
  (opener?.isConnected ? opener : byId("models")).focus();
  return true;
}

// While nobody looks, the connection is somebody else's: a browser has six per daemon.
export function pauseLog(hidden) {
  if (stream && hidden) stream.close();
  else if (stream && !stream.stop) stream.open();
}

function state(text) {
  write(byId("log-state"), text);
}

function append(lines) {
  const box = byId("lines");
  const fresh = document.createDocumentFragment();
  let matching = 0;
  for (const text of lines) {
    const line = make("div", "line");
    line.words = text.replace(COLOURS, "");
    if (BAD.test(line.words)) line.dataset.tone = "bad";
    else if (WARNS.test(line.words)) line.dataset.tone = "warn";
    matching += show(line);
    fresh.append(line);
  }
  box.append(fresh);
  while (box.childElementCount > MOST_LINES) box.firstChild.remove();
  if (follows) toEnd();
  else missed += matching;
  count();
}

// Write a line with what is searched for marked in it; hide it when that is not there. Text only, never markup.
function show(line) {
  const text = line.words;
  if (!wanted) {
    line.hidden = false;
    line.replaceChildren(text);
    return true;
  }
  const low = text.toLowerCase();
  const parts = [];
  let end = 0;
  // Lower case may have another length (İ): then what is found is shown, and not marked.
  const step = low.length === text.length;
  for (let at = low.indexOf(wanted); at >= 0 && step; at = low.indexOf(wanted, end)) {
    parts.push(text.slice(end, at), make("mark", "", text.slice(at, at + wanted.length)));
    end = at + wanted.length;
  }
  line.hidden = !low.includes(wanted);
  line.replaceChildren(...parts, text.slice(end));
  return !line.hidden;
}

function count() {
  const box = byId("lines");
  const all = box.childElementCount;
  const lines = all === 1 ? "1 line" : `${all} lines`;
  const found = wanted ? [...box.children].filter((line) => !line.hidden).length : all;
  write(byId("log-count"), wanted ? `${found} of ${lines}` : lines);
  write(byId("log-none"), all && !found ? "No line has that." : "");
  const more = byId("log-follow");
  write(more.lastElementChild, !follows && missed ? `Follow (${missed} new)` : "Follow");
}

function toEnd() {
  const box = byId("lines");
  box.scrollTop = box.scrollHeight;
}

function follow(on) {
  follows = on;
  byId("follow").checked = on;
  if (on) {
    missed = 0;
    toEnd();
  }
  count();
}

function search() {
  wanted = byId("log-search").value.toLowerCase();
  for (const line of byId("lines").children) show(line);
  if (follows) toEnd();
  count();
}

export function prepareLog() {
  byId("log-search").addEventListener("input", search);
  byId("follow").addEventListener("change", (event) => follow(event.target.checked));
  byId("wrap").addEventListener("change", (event) => {
    byId("lines").classList.toggle("wraps", event.target.checked);
    if (follows) toEnd();
  });
  byId("log-close").addEventListener("click", closeLog);
  byId("lines").addEventListener("scroll", () => {
    const box = byId("lines");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END;
    if (atEnd !== follows) follow(atEnd);
  });
}

// Escape: first the search, then the panel. True when it did something.
export function escapeLog() {
  const field = byId("log-search");
  if (opened !== null && field.value) {
    field.value = "";
    search();
    return true;
  }
  return closeLog();
}
