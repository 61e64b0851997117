// Replaces a text and briefly tints what has changed.

import { create } from "../dom.js";

const LEAST = 3; // fewer unchanged characters between two changes count as changed
const REWRITTEN = 0.75; // share of changes above which none is tinted

// Whether each character of `text` is new, by the longest common subsequence with `before`.
function changes(before, text) {
	const width = text.length + 1;
	const longest = new Uint16Array((before.length + 1) * width);
	for (let i = before.length - 1; i >= 0; i -= 1) {
		for (let j = text.length - 1; j >= 0; j -= 1) {
			const at = i * width + j;
			longest[at] =
				before[i] === text[j] ? longest[at + width + 1] + 1 : Math.max(longest[at + width], longest[at + 1]);
		}
	}
	const changed = new Array(text.length).fill(true);
	for (let i = 0, j = 0; i < before.length && j < text.length; ) {
		const at = i * width + j;
		if (before[i] === text[j]) {
			changed[j] = false;
			i += 1;
			j += 1;
		} else if (longest[at + width] >= longest[at + 1]) i += 1;
		else j += 1;
	}
	return changed;
}

// The text in alternately changed and unchanged pieces: [[characters, changed], …].
function pieces(before, text) {
	const characters = [...text];
	const changed = changes([...before], characters);
	const found = [];
	for (let start = 0, end = 0; start < characters.length; start = end) {
		while (end < characters.length && changed[end] === changed[start]) end += 1;
		const isNew = changed[start] || (found.length > 0 && end - start < LEAST);
		const part = characters.slice(start, end).join("");
		if (found.at(-1)?.[1] === isNew) found.at(-1)[0] += part;
		else found.push([part, isNew]);
	}
	return found;
}

// `before` is the text to compare with, or null.
export function showPassage(element, prompt, text, before) {
	const nodes = [create("span", { class: "prompt" }, prompt)];
	const parts = before === null ? [[text, false]] : pieces(before, text);
	const share = parts.reduce((sum, [part, isNew]) => sum + (isNew ? part.length : 0), 0) / (text.length || 1);
	for (const [part, isNew] of parts) nodes.push(isNew && share < REWRITTEN ? create("em", {}, part) : part);
	// programs and tables need a monospaced font
	const signs = text.match(/[{}()[\]<>=;|\\/_\t]| {3,}/g)?.length ?? 0;
	element.classList.toggle("columns-matter", signs > 0.04 * text.length);
	element.replaceChildren(...nodes);
}
