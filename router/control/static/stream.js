// A stream of server-sent events that is kept open: it comes back after a loss, and says how it is.
//
// fetch instead of EventSource, which tells neither the status of a refusal (a session that has ended is no lost
// connection) nor lets a page say where to resume.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
const SILENCE_MS = 40000; // the daemon says something every 15 s: by then two of them are missing

export class Stream {
  // `on.event(kind, data)`, `on.open()`, `on.lost({again, message})` with the moment of the next try
  // (performance.now) and the daemon's own words if it answered, `on.refused(status, message)`: no further try.
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.last = "";
    this.pause = FIRST_PAUSE_MS;
    this.stop = null;
    this.timer = null;
    this.said = "";
  }

  open() {
    this.close();
    const stop = this.stop = new AbortController();
    this.listen(stop).then((refused) => {
      if (stop.signal.aborted && this.stop !== stop) return; // closed, or opened anew meanwhile
      if (!refused) this.again();
    });
  }

  close() {
    clearTimeout(this.timer);
    const stop = this.stop;
    this.stop = null;
    stop?.abort();
  }

  again() {
    this.on.lost({ again: performance.now() + this.pause, message: this.said });
    this.timer = setTimeout(() => this.open(), this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  // True when the daemon refused in a way that another try will not change.
  async listen(stop) {
    let watchdog = null;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stop.abort(), SILENCE_MS);
    };
    this.said = "";
    try {
      alive();
      const headers = { Accept: "text/event-stream", ...(this.last && { "Last-Event-ID": this.last }) };
      const response = await fetch(this.url, { headers, cache: "no-store", redirect: "error", signal: stop.signal });
      if (!response.ok) {
        this.said = (await response.json()).error.message;
        if (response.status !== 401 && response.status !== 403) return false;
        this.on.refused(response.status, this.said);
        return true;
      }
      this.pause = FIRST_PAUSE_MS;
      this.on.open();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const take = frames((id, kind, data) => {
        if (id) this.last = id;
        this.on.event(kind, JSON.parse(data));
      });
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        alive();
        take(piece.value);
      }
    } catch (error) {
      // A connection that breaks is what we are here for; a mistake of ours must not look like one.
      if (!(error instanceof TypeError || error.name === "AbortError" || error instanceof SyntaxError)) throw error;
    } finally {
      clearTimeout(watchdog);
    }
    return false;
  }
}

// Cuts text into events: `(id, kind, data)` for each that has data.
export function frames(found) {
  let rest = "";
  return (text) => {
    const parts = (rest + text).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      let id = "", kind = "message", data = "";
      for (const line of part.split("\n")) {
        if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("event: ")) kind = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) found(id, kind, data);
    }
  };
}
