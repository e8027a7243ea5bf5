// What the page shows where there is nothing to show, for somebody who has just begun.

import { make } from "./nodes.js";

function empty(title, ...content) {
  const box = make("div", "card empty");
  box.append(make("strong", "", title), ...content);
  return box;
}

export function nothingFits() {
  return empty("No model fits the filter", make("p", "", "Clear it (Escape) to see them all."));
}

export function noModels() {
  return empty(
    "No models yet",
    make("p", "", "modelyard serves what is in the Hugging Face cache and what its configuration names. Download one:"),
    make("pre", "", "hf download Qwen/Qwen3-0.6B"),
    make("p", "", "or name one in modelyard.yaml:"),
    make("pre", "", "models:\n  qwen3:\n    source: Qwen/Qwen3-0.6B"),
    make("p", "", "and start modelyard again."),
  );
}

export function nothingRuns(status, session) {
  const usable = status.models.filter((model) => model.state === "stopped" && model.capabilities.includes("generate"));
  usable.sort((a, b) => (a.size_bytes ?? Infinity) - (b.size_bytes ?? Infinity));
  const example = status.default_model || usable[0]?.id;
  const box = empty("Nothing is loaded", make("p", "", "A model starts with the first request for it, or with its Load button."));
  if (example) {
    const request = JSON.stringify({ model: example, messages: [{ role: "user", content: "Hello!" }] });
    const lines = [
      `curl ${location.origin}/v1/chat/completions`,
      ...(session?.keys ? ["-H \"Authorization: Bearer $MODELYARD_API_KEY\""] : []),
      "-H 'Content-Type: application/json'",
      `-d '${request.replaceAll("'", "'\\''")}'`, // it is meant to be pasted into a shell
    ];
    box.append(make("pre", "", lines.join(" \\\n  ")));
  }
  return box;
}
