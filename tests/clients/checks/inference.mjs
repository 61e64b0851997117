// @huggingface/inference: a chat, a text and their streams, with the URL of the endpoint only.
import assert from "node:assert";
import { InferenceClient } from "@huggingface/inference";

const url = process.argv[2];
const messages = [{ role: "user", content: "the cat" }];
const client = new InferenceClient("none", { endpointUrl: url });
const answer = await client.chatCompletion({ messages, max_tokens: 20, seed: 1 });
const chat = answer.choices[0].message.content;
assert.equal(chat.length, 20);
let streamed = "";
for await (const part of client.chatCompletionStream({ messages, max_tokens: 20, seed: 1 })) {
  streamed += part.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, chat);
const parameters = { max_new_tokens: 20, seed: 1, typical_p: 0.95 };
const text = await client.textGeneration({ inputs: "the cat", parameters });
assert.equal(text.generated_text.length, 20);
let written = "";
for await (const part of client.textGenerationStream({ inputs: "the cat", parameters })) {
  written += part.token?.text ?? part.choices[0].text; // it calls /v1/completions
}
assert.equal(written, text.generated_text);
