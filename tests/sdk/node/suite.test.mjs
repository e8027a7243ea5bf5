// The OpenAI SDK for Node, unchanged, against the daemon at $BASE_URL: the same cases as the Python one's.
// With $SPACIOUS_URL's daemon white space comes before JSON. $TIMEOUT_MS is shorter than a cold start.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const TEXT = "one two three";
const timeout = Number(process.env.TIMEOUT_MS);
const client = new OpenAI({ baseURL: `${process.env.BASE_URL}/v1`, apiKey: "none", maxRetries: 0, timeout: 20_000 });
const impatient = client.withOptions({ timeout });

const ask = (content = "hello", model = "m") => ({ model, messages: [{ role: "user", content }] });
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];

async function textOf(stream) {
  let text = "";
  for await (const event of stream) text += event.choices[0].delta.content ?? "";
  return text;
}

async function status() {
  const answer = await fetch(`${process.env.BASE_URL}/api/status`);
  return (await answer.json()).models.find((model) => model.id === "m");
}

async function eventually(probe, what) {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    if (await probe()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`not within 10 s: ${what}`);
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("m"));
  assert.equal((await client.models.retrieve("m")).id, "m");
});

test("a chat completion", async () => {
  const { data, request_id } = await client.chat.completions.create(ask()).withResponse();
  assert.equal(data.choices[0].message.content, TEXT);
  assert.equal(data.model, "m");
  assert.equal(data.usage.total_tokens, 8);
  assert.ok(request_id);
});

test("a streamed chat completion", async () => {
  assert.equal(await textOf(await client.chat.completions.create({ ...ask(), stream: true })), TEXT);
});

test("a tool call, whole and streamed", async () => {
  const answer = await client.chat.completions.create({ ...ask("tool"), tools });
  assert.deepEqual(answer.choices[0].message.tool_calls[0].function, {
    name: "weather",
    arguments: '{"city": "Oslo"}',
  });
  const names = [];
  for await (const event of await client.chat.completions.create({ ...ask("tool"), tools, stream: true })) {
    for (const call of event.choices[0].delta.tool_calls ?? []) names.push(call.function.name);
  }
  assert.deepEqual(names, ["weather"]);
});

test("completions, embeddings and responses", async () => {
  assert.equal((await client.completions.create({ model: "m", prompt: "hi" })).choices[0].text, TEXT);
  const vectors = await client.embeddings.create({ model: "m", input: ["a", "b"], encoding_format: "float" });
  assert.equal(vectors.data.length, 2);
  assert.equal((await client.responses.create({ model: "m", input: "hi" })).output_text, TEXT);
  const stream = client.responses.stream({ model: "m", input: "hi" });
  assert.equal((await stream.finalResponse()).output[0].content[0].text, TEXT);
});

test("errors arrive as the SDK's own", async () => {
  await assert.rejects(client.chat.completions.create(ask("refuse")), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.match(error.message, /not right/);
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.chat.completions.create(ask("hello", "nobody")), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
});

test("aborting a stream stops the engine", async () => {
  const stats = `http://127.0.0.1:${(await status()).port}/_stats`;
  const left = async () => (await (await fetch(stats)).json()).left;
  const before = await left();
  const stream = await client.chat.completions.create({ ...ask("endless"), stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
  await eventually(async () => (await left()) > before, "the engine to notice");
  await eventually(async () => (await status()).in_flight === 0, "the lease to be returned");
});

test("aborting a request that waits returns its lease", async () => {
  const controller = new AbortController();
  const asked = client.chat.completions.create(ask("slow"), { signal: controller.signal });
  await eventually(async () => (await status()).in_flight === 1, "the request to be there");
  controller.abort();
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  await eventually(async () => (await status()).in_flight === 0, "the lease to be returned");
});

test("a time-out of the SDK is its own", async () => {
  const hasty = client.withOptions({ timeout: 300 });
  await assert.rejects(hasty.chat.completions.create(ask("slow")), OpenAI.APIConnectionTimeoutError);
  await eventually(async () => (await status()).in_flight === 0, "the lease to be returned");
});

test("a stream outlives a cold start that is longer than the time-out", async () => {
  const stream = await impatient.chat.completions.create({ ...ask("hello", "cold4"), stream: true });
  assert.equal(await textOf(stream), TEXT);
});

test("without a stream the SDK is told when to come again, and does", async () => {
  // Said with the request: what the client is made with, this SDK keeps to itself.
  const began = Date.now();
  await assert.rejects(client.chat.completions.create(ask("hello", "cold5"), { timeout }), (error) => {
    assert.equal(error.status, 503);
    assert.equal(error.code, "model_loading");
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return true;
  });
  assert.ok(Date.now() - began < timeout);
  const answer = await client.chat.completions.create(ask("hello", "cold5"), { timeout, maxRetries: 3 });
  assert.equal(answer.choices[0].message.content, TEXT);
});

test("with white space the first try succeeds", async () => {
  const spacious = impatient.withOptions({ baseURL: `${process.env.SPACIOUS_URL}/v1` });
  const answer = await spacious.chat.completions.create(ask("hello", "cold1"));
  assert.equal(answer.choices[0].message.content, TEXT);
});
