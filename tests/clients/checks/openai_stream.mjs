// openai for Node: the stream helper with log-probabilities, several choices, and loops that end at finish_reason.
import assert from "node:assert";
import OpenAI from "openai";

const openai = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const messages = [{ role: "user", content: "the cat" }];
const request = { model: "gru", messages, max_tokens: 40, seed: 1, logprobs: true, top_logprobs: 2, n: 2 };
const whole = await openai.chat.completions.create(request);
const helper = openai.chat.completions.stream(request);
const final = await helper.finalChatCompletion();
for (const [index, choice] of whole.choices.entries()) {
  assert.equal(final.choices[index].message.content, choice.message.content);
  assert.equal(final.choices[index].finish_reason, "length");
  assert.deepEqual(final.choices[index].logprobs.content, choice.logprobs.content);
}
let text = "";
for await (const part of await openai.chat.completions.create({ ...request, n: 1, stream: true })) {
  if (part.choices[0].finish_reason) break;
  text += part.choices[0].delta.content;
}
assert.equal(text, whole.choices[0].message.content);
const completion = { model: "gru", prompt: "the cat", max_tokens: 40, seed: 1 };
const done = await openai.completions.create(completion);
let written = "";
for await (const part of await openai.completions.create({ ...completion, stream: true })) {
  if (part.choices[0].finish_reason) break;
  written += part.choices[0].text;
}
assert.equal(written, done.choices[0].text);
