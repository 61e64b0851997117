// Tooltips for terms under the pointer or with the focus: <dfn data-says="...">.

import { create } from "../dom.js";

const tip = create("div", { class: "tip", id: "tip", role: "tooltip", hidden: true });
document.body.append(tip);
let shown = null;

// Shows a text next to a box on the screen.
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

const termOf = ({ target }) => (target instanceof Element ? target.closest("[data-says]") : null);

for (const event of ["pointerover", "focusin", "click"]) {
	document.addEventListener(event, (e) => {
		const element = termOf(e);
		if (!element) return event === "click" && hideTip();
		hideTip();
		shown = element;
		element.setAttribute("aria-describedby", "tip");
		showTip(element.getBoundingClientRect(), element.dataset.says);
	});
}
for (const event of ["pointerout", "focusout"]) {
	document.addEventListener(event, (e) => termOf(e) === shown && e.relatedTarget !== shown && hideTip());
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
const follow = () => (shown ? showTip(shown.getBoundingClientRect(), tip.textContent) : hideTip());
window.addEventListener("scroll", follow, { passive: true });
