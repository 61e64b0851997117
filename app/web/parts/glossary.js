// What the words of the trade mean, shown when one is pointed at, focused or touched: <dfn data-term="update">.

import { create } from "../dom.js";

const TERMS = {
	update: "One step of learning: it reads a few lines, sees where it guessed wrong, and its weights move a little.",
	real: "A word counts as real if it occurs in the text that the network learns from.",
	wavers:
		"e to the power of the loss. It is as unsure of the next character as if it had to choose among this many " +
		"equally likely ones. The loss itself is measured in nats per character.",
	loss: "How surprised it is by the next character, on average, in nats. 0: never; ln K: it knows nothing.",
	"held-out": "A part of the text that it never learns from, kept to measure how well it does on something new.",
	smooth: "The loss on the text that it is learning from, averaged over the last updates.",
	"5-gram":
		"A model that only counts: it looks at the last four characters, and at what followed them in the text. " +
		"A network should beat it.",
	temperature: "How daring it is. Near 0 it always takes the likeliest character; above 1 it takes more risks.",
	"top-p": "It chooses only among the likeliest characters, as many as together reach this probability.",
	seed: "Where its dice begin. The same network, prompt, settings and seed give the same text, to the letter.",
	r:
		"Correlation, measured on the second half of this text. 1: the unit rises and falls with it; -1: just the " +
		"other way round; 0: the two have nothing to do with each other.",
	checkpoint: "The network as it was after some update, kept so that it can write again.",
};

const tip = create("div", { class: "tip", id: "tip", role: "tooltip", hidden: true });
document.body.append(tip);
let shown = null;

// A word with its explanation, for text that scripts write.
export function term(name, text) {
	return create("dfn", { "data-term": name, tabindex: "0" }, text);
}

// Shows a text next to a place on the screen.
export function showTip(place, text) {
	tip.textContent = text;
	tip.hidden = false;
	const box = tip.getBoundingClientRect();
	const left = place.left + place.width / 2 - box.width / 2;
	const above = place.top - box.height - 8;
	tip.style.left = `${Math.max(8, Math.min(left, window.innerWidth - box.width - 8))}px`;
	tip.style.top = `${above > 4 ? above : place.bottom + 8}px`;
}

export function hideTip() {
	shown?.removeAttribute("aria-describedby");
	shown = null;
	tip.hidden = true;
}

function show(element) {
	const text = TERMS[element.dataset.term];
	if (!text) return;
	hideTip();
	shown = element;
	element.setAttribute("aria-describedby", "tip");
	showTip(element.getBoundingClientRect(), text);
}

const termOf = (event) => (event.target instanceof Element ? event.target.closest("[data-term]") : null);

for (const event of ["pointerover", "focusin", "click"]) {
	document.addEventListener(event, (e) => {
		const element = termOf(e);
		if (element) show(element);
		else if (event === "click") hideTip();
	});
}
for (const event of ["pointerout", "focusout"]) {
	document.addEventListener(event, (e) => termOf(e) === shown && e.relatedTarget !== shown && hideTip());
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
window.addEventListener("scroll", hideTip, { passive: true });
