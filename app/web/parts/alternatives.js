// Shows the alternatives to the character under the pointer.

import { post } from "../http.js";
import { chance, visible } from "../words.js";
import { hideTip, showTip } from "./glossary.js";

const LONGEST = 10000; // characters that are scored

const scores = new WeakMap(); // element -> {text, promise of its score}

async function scoreOf(element, model) {
	const text = element.textContent;
	if (scores.get(element)?.text !== text) {
		const answer = post("/score", { model, text: [...text].slice(0, LONGEST).join(""), top: 4 });
		scores.set(element, { text, score: answer.then((found) => found.json()).then((found) => found.scores[0]) });
	}
	return scores.get(element).score;
}

// The character at a point: its index in the text, and its box on the screen.
function placeOf(element, x, y) {
	const { offsetNode: node, offset } = document.caretPositionFromPoint?.(x, y) ?? {};
	if (node?.nodeType !== Node.TEXT_NODE || !element.contains(node)) return null;
	const character = document.createRange();
	for (const start of [offset, offset - 1]) {
		if (start < 0 || start >= node.length) continue;
		character.setStart(node, start);
		character.setEnd(node, start + 1);
		const box = character.getBoundingClientRect();
		if (x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
		const before = document.createRange();
		before.setStart(element, 0);
		before.setEnd(node, start);
		return { index: [...before.toString()].length, box };
	}
	return null;
}

// `modelOf(element)` returns the model that wrote a text in `container`, or null.
export function alternatives(container, modelOf) {
	let turn = 0;
	container.addEventListener("pointermove", async (event) => {
		const element = event.target.closest("pre");
		const model = element && modelOf(element);
		const place = model && placeOf(element, event.clientX, event.clientY);
		turn += 1;
		const mine = turn;
		if (!place) return hideTip();
		const score = await scoreOf(element, model).catch(() => null);
		const top = score?.top?.[place.index];
		if (mine !== turn || !top) return;
		const character = [...element.textContent][place.index];
		const rest = Object.entries(top)
			.filter(([one]) => one !== character)
			.sort(([, one], [, other]) => other - one)
			.map(([one, value]) => `“${visible(one)}” ${chance(value)}`);
		showTip(
			place.box,
			`“${visible(character)}” had ${chance(score.logprobs[place.index])}. Instead: ${rest.join(", ")}`,
		);
	});
	container.addEventListener("pointerleave", () => {
		turn += 1;
		hideTip();
	});
}
