// Vercel's AI SDK, by its provider for compatible servers and by that for OpenAI.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, isStepCount, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { base, run } from "./cases.mjs";

const compatible = createOpenAICompatible({ name: "perpetune", baseURL: base, supportsStructuredOutputs: true, includeUsage: true });
const providers = {
  compatible: compatible("reviews"),
  "responses of openai": createOpenAI({ baseURL: base, apiKey: "none" })("reviews"),
  openai: createOpenAI({ baseURL: base, apiKey: "none" }).chat("reviews"),
};
const Review = z.object({ stars: z.number(), reason: z.string() });
const tools = {
  weather: tool({ inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => `rain in ${city}` }),
};

function casesOf(model) {
  return {
    async answers() {
      const { text, usage, finishReason } = await generateText({ model, prompt: "hello" });
      assert.equal(text, "you said hello");
      assert.equal(finishReason, "stop");
      assert.ok(usage.totalTokens > 0);
    },
    async streams() {
      const { textStream, usage } = streamText({ model, prompt: "a b c" });
      let text = "";
      for await (const piece of textStream) text += piece;
      assert.equal(text, "you said a b c");
      assert.ok((await usage).totalTokens > 0);
    },
    async "stops a stream"() {
      const stop = new AbortController();
      const { textStream } = streamText({ model, prompt: "slowly a b c d e f", abortSignal: stop.signal });
      for await (const _ of textStream) stop.abort();
    },
    async "gets an object"() {
      const { output } = await generateText({ model, prompt: "review", output: Output.object({ schema: Review }) });
      assert.deepEqual(output, { stars: 4, reason: "review" });
    },
    async "calls tools"() {
      const done = await generateText({ model, prompt: "how is it", tools, stopWhen: (isStepCount ?? stepCountIs)(3) });
      assert.equal(done.text, "you said rain in Bonn");
    },
    async "streams tools"() {
      const done = streamText({ model, prompt: "how is it", tools, stopWhen: (isStepCount ?? stepCountIs)(3) });
      assert.equal(await done.text, "you said rain in Bonn");
    },
    async "knows the errors"() {
      await assert.rejects(generateText({ model, prompt: "word ".repeat(190), maxRetries: 0 }), (fault) => {
        assert.ok(APICallError.isInstance(fault));
        assert.equal(fault.statusCode, 400);
        assert.match(fault.message, /maximum context length/);
        assert.equal(fault.isRetryable, false);
        return true;
      });
    },
  };
}

const all = {};
for (const [name, model] of Object.entries(providers)) {
  for (const [what, check] of Object.entries(casesOf(model))) all[`${name} ${what}`] = check;
}
await run(all);
