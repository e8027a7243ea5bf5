// Numbers and events in words. Nothing here touches the page.

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit < 2 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

// A part and its whole, the unit once where it is the same: "57.0 of 60.0 GiB".
export function share(part, whole) {
  const [number, unit] = bytes(part).split(" ");
  return unit === bytes(whole).split(" ")[1] ? `${number} of ${bytes(whole)}` : `${bytes(part)} of ${bytes(whole)}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

// What is left of a time: rounded up, so that it is 0 only when it is over.
export function left(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.ceil(seconds))} s`;
  return seconds < 3600 ? `${Math.ceil(seconds / 60)} min` : span(seconds);
}

export function many(count) {
  if (count < 10000) return String(count);
  if (count < 1e6) return `${(count / 1e3).toFixed(1)} k`;
  return `${(count / 1e6).toFixed(1)} M`;
}

export function context(tokens) {
  return tokens >= 1024 && tokens % 1024 === 0 ? `${tokens / 1024}k context` : `${many(tokens)} context`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

const ASKED = {
  load: "an operator asked to load it", retry: "an operator asked to try it again", unload: "an operator asked to unload it",
  force: "an operator asked to stop it at once", pin: "pinned: stays in memory", unpin: "no longer pinned",
};

// An event in words, and the tone of it.
export function tell(event) {
  const data = event.data;
  switch (event.kind) {
    case "operator_asked": return [ASKED[data.wish] || `an operator asked: ${data.wish}`];
    case "instance_state_changed": return [`${data.previous} → ${data.state}`, data.state === "failed" ? "bad" : null];
    case "instance_spawned": return [`process ${data.pid} ${data.adopted ? "found" : "started"}, port ${data.port}`];
    case "instance_adopted": return [`taken over from the earlier daemon, process ${data.pid}`, "good"];
    case "instance_ready": return [`ready after ${Number(data.took_seconds).toFixed(1)} s`, "good"];
    case "instance_failed": return [`failed: ${data.cause}`, "bad"];
    case "instance_exited": return [`process ended${data.signal ? ` by signal ${data.signal}` : data.code === null ? "" : ` with status ${data.code}`}`];
    case "instance_evicted": return [`makes room${data.beneficiary ? ` for ${data.beneficiary}` : ""}${data.reason ? `: ${data.reason}` : ""}`, "warn"];
    case "instance_reaped": return [`stopped: idle for ${span(data.ttl)}`];
    case "memory_held": return [`stopped, but ${data.by} still holds its memory`, "bad"];
    case "model_redefined": return [`restarts with another definition${data.changed.length ? `: ${data.changed.join(", ")}` : ""}`];
    case "model_rolled_back": return [`keeps its old definition: ${data.cause}`, "bad"];
    case "request_refused": return [`${data.requests > 1 ? `${data.requests} requests` : "request"} refused: ${data.reason}`, "warn"];
    default: {
      const words = Object.entries(data).map(([key, value]) => `${key} ${value}`).join(", ");
      return [`${event.kind.replaceAll("_", " ")}${words ? `: ${words}` : ""}`];
    }
  }
}
