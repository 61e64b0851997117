// Texts by checkpoints. Every answer is requested once: a checkpoint always writes the same.

import { getJson, patiently, post, runUrl } from "../http.js";

const MOST = 400; // cached answers

const answers = new Map(); // request -> promise of the answer

function once(key, ask) {
	if (!answers.has(key)) {
		const answer = ask();
		answers.set(key, answer);
		answer.catch(() => answers.delete(key));
		if (answers.size > MOST) answers.delete(answers.keys().next().value);
	}
	return answers.get(key);
}

// The answer of /generate with the checkpoint `model` (run@step).
export function written(model, asked, waiting) {
	const ask = async () => (await post("/generate", { model, ...asked })).json();
	return once(JSON.stringify([model, asked]), () => patiently(ask, waiting));
}

// The passage of the checkpoint of a step, or of the newest one.
export const passageAt = (run, step) => once(`${run}@${step}`, () => getJson(`${runUrl(run)}/passage?step=${step}`));

export async function newestPassage(run) {
	const answer = await getJson(`${runUrl(run)}/passage`);
	return once(answer.model, async () => answer);
}

export const isKnown = (run, step) => answers.has(`${run}@${step}`);

// Up to three prompts from the text of a run.
export const beginnings = (run) =>
	once(`beginnings of ${run}`, async () => (await getJson(`${runUrl(run)}/beginnings`)).beginnings);
