// What happened lately, newest first, with its reason.

import { byId, keep, make, mark } from "./nodes.js";
import { clock, tell } from "./words.js";

export function renderEvents(status) {
  const list = byId("events");
  // That a state follows from another can be seen in what is told beside it.
  const events = status.recent_events.filter((event) => event.kind !== "instance_state_changed");
  if (!events.length) {
    keep(list, ["none"], (what) => what, () => make("li", "hint", "Nothing has happened yet."));
    return;
  }
  keep(list, events, (event) => `${event.id} ${event.at}`, (event) => {
    const line = make("li");
    const [what, tone] = tell(event);
    const when = make("time", "", clock(event.at));
    when.dateTime = new Date(event.at * 1000).toISOString();
    when.title = new Date(event.at * 1000).toLocaleString();
    mark(line, "data-tone", tone || null);
    line.append(when, make("span", "who", event.model), make("span", "what", what));
    return line;
  });
}
