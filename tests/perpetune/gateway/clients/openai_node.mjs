// The official OpenAI client for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { base, run } from "./cases.mjs";

const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
const ask = (content, more = {}) => ({ model: "reviews", messages: [{ role: "user", content }], ...more });
const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};
const Review = z.object({ stars: z.number(), reason: z.string() });

await run({
  async answers() {
    const done = await client.chat.completions.create(ask("hello"));
    assert.equal(done.choices[0].message.content, "you said hello");
    assert.equal(done._request_id, done.id);
  },
  async streams() {
    let text = "";
    for await (const chunk of await client.chat.completions.create(ask("a b c", { stream: true }))) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    assert.equal(text, "you said a b c");
  },
  async "streams with the helper"() {
    const stream = client.chat.completions.stream(ask("a b", { stream_options: { include_usage: true } }));
    assert.equal(await stream.finalContent(), "you said a b");
    assert.ok((await stream.totalUsage()).completion_tokens > 0);
  },
  async "stops a stream"() {
    const stream = await client.chat.completions.create(ask("slowly a b c d e f g", { stream: true }));
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    assert.ok(stream.controller.signal.aborted);
  },
  async "parses what a schema promises"() {
    const format = zodResponseFormat(Review, "review");
    const done = await client.chat.completions.parse(ask("review", { response_format: format }));
    assert.deepEqual(done.choices[0].message.parsed, { stars: 4, reason: "review" });
  },
  async "calls tools"() {
    const runner = client.chat.completions.runTools(
      ask("how is it", {
        tools: [{ ...weather, function: { ...weather.function, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } }],
      }),
    );
    assert.equal(await runner.finalContent(), "you said rain in Bonn");
  },
  async "reads log-probabilities"() {
    const done = await client.chat.completions.create(ask("a b", { logprobs: true, top_logprobs: 2 }));
    const tokens = done.choices[0].logprobs.content;
    assert.equal(tokens.map((one) => one.token).join(""), done.choices[0].message.content);
  },
  async "asks by /v1/responses"() {
    const done = await client.responses.create({ model: "reviews", input: "hello" });
    assert.equal(done.output_text, "you said hello");
    let text = "";
    for await (const event of await client.responses.create({ model: "reviews", input: "a b", stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert.equal(text, "you said a b");
  },
  async "asks by /v1/completions"() {
    const done = await client.completions.create({ model: "reviews", prompt: "hello" });
    assert.equal(done.choices[0].text, "you said hello");
  },
  async "lists models"() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes("reviews"));
  },
  async "knows the errors"() {
    await assert.rejects(client.chat.completions.create({ ...ask("x"), model: "gpt-4o" }), OpenAI.NotFoundError);
    await assert.rejects(client.chat.completions.create(ask("word ".repeat(190))), (fault) => {
      assert.ok(fault instanceof OpenAI.BadRequestError);
      assert.equal(fault.code, "context_length_exceeded");
      assert.match(fault.requestID, /^chatcmpl-/);
      return true;
    });
    await assert.rejects(client.chat.completions.create(ask("word ".repeat(900))), { status: 413 });
  },
});
