// What a network wrote at an age. Every answer is asked for once: a checkpoint always writes the same.

import { getJson, patiently, post, runUrl } from "../http.js";

const MOST = 400; // answers that are remembered

const answers = new Map(); // what was asked -> promise of the answer

function once(key, ask) {
	if (!answers.has(key)) {
		const answer = ask();
		answers.set(key, answer);
		answer.catch(() => answers.delete(key));
		if (answers.size > MOST) answers.delete(answers.keys().next().value);
	}
	return answers.get(key);
}

// The answer of /generate by the checkpoint `model` (run@step).
export function written(model, asked, waiting) {
	const ask = async () => (await post("/generate", { model, ...asked })).json();
	return once(JSON.stringify([model, asked]), () => patiently(ask, waiting));
}

// The passage that every checkpoint of a run writes: by that of a step, or by the newest.
export const passageAt = (run, step) => once(`${run}@${step}`, () => getJson(`${runUrl(run)}/passage?step=${step}`));

export async function newestPassage(run) {
	const answer = await getJson(`${runUrl(run)}/passage`);
	return once(answer.model, async () => answer);
}

export const isKnown = (run, step) => answers.has(`${run}@${step}`);

// Up to three beginnings from the text of a run.
export const beginnings = (run) =>
	once(`beginnings of ${run}`, async () => (await getJson(`${runUrl(run)}/beginnings`)).beginnings);
