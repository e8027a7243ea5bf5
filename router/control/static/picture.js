// What the page knows: the last whole status with every change since, and the time that has passed.

const KEPT_EVENTS = 100;

let status = null;
let heard = 0; // performance.now() when `status.at` was true

export function takeWhole(whole) {
  heard = performance.now();
  for (const model of whole.models) model.heard = heard;
  status = whole;
}

export function takeChange(change) {
  if (!status) return;
  heard = performance.now();
  const models = new Map(status.models.map((model) => [model.id, model]));
  for (const id of change.gone) models.delete(id);
  for (const model of change.models) models.set(model.id, { ...model, heard });
  const events = [...change.recent_events, ...status.recent_events].slice(0, KEPT_EVENTS);
  status = { ...status, ...change, models: [...models.values()], recent_events: events };
}

// The status now: ages have grown and countdowns have shrunk since the daemon said them.
export function now() {
  if (!status) return null;
  const moment = performance.now();
  const passed = (moment - heard) / 1000;
  return {
    ...status,
    at: status.at + passed,
    uptime_seconds: status.uptime_seconds + passed,
    models: status.models.map((model) => aged(model, (moment - model.heard) / 1000)),
  };
}

function aged(model, passed) {
  return {
    ...model,
    idle_seconds: model.idle_seconds === null ? null : model.idle_seconds + passed,
    oldest_request_seconds: model.in_flight ? model.oldest_request_seconds + passed : 0,
    oldest_wait_seconds: model.waiting ? model.oldest_wait_seconds + passed : 0,
    eta_seconds: model.eta_seconds === null ? null : Math.max(0, model.eta_seconds - passed),
    retry_in_seconds: model.retry_in_seconds === null ? null : Math.max(0, model.retry_in_seconds - passed),
  };
}
