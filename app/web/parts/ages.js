// What a network wrote, or writes now, at an age: the same prompt and seed for every checkpoint.

import { getJson, patiently, post } from "../http.js";

const MOST = 400; // texts that are remembered

const texts = new Map(); // checkpoint and request -> promise of the answer
const prompts = new Map(); // run -> promise of its beginnings

const keyOf = (model, asked) => JSON.stringify([model, asked]);
const ask = (model, asked, waiting) =>
	patiently(async () => (await post("/generate", { model, ...asked })).json(), waiting);

function remember(key, answer) {
	texts.set(key, answer);
	answer.catch(() => texts.delete(key));
	if (texts.size > MOST) texts.delete(texts.keys().next().value);
	return answer;
}

// The answer of /generate by the checkpoint `model` (run@step): the same request has the same answer.
export function written(model, asked, waiting = () => {}) {
	const key = keyOf(model, asked);
	return texts.get(key) ?? remember(key, ask(model, asked, waiting));
}

export const isRemembered = (model, asked) => texts.has(keyOf(model, asked));

// The answer by the newest checkpoint of a run, whichever that is by the time of writing.
export async function writtenNow(run, asked) {
	const answer = await ask(run, asked, () => {});
	return remember(keyOf(answer.model, asked), Promise.resolve(answer));
}

// Up to three beginnings from the text of a run.
export function beginnings(run) {
	if (!prompts.has(run)) {
		const found = getJson(`/runs/${encodeURIComponent(run)}/beginnings`).then((answer) => answer.beginnings);
		found.catch(() => prompts.delete(run));
		prompts.set(run, found);
	}
	return prompts.get(run);
}

// The share of the words in some texts that occur in the text of the run; null where there is no whole word.
export async function realWords(run, passages) {
	const answer = await post(`/runs/${encodeURIComponent(run)}/words`, { text: passages.join("\n\n").slice(0, 10000) });
	const { words, real } = await answer.json();
	return words ? real / words : null;
}
