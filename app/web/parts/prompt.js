// A text box that marks, in place, the characters that the chosen network has never seen, and those that are too many.

import { create } from "../dom.js";
import { lab } from "../lab.js";
import { number, visible } from "../words.js";

export class PromptBox {
	// `note` says which they are, and offers to leave them out.
	constructor(area, note, select) {
		this.area = area;
		this.note = note;
		this.select = select;
		this.backdrop = area.parentElement.querySelector(".marks");
		this.unseen = new Map(); // run -> characters it refused
		for (const event of ["input", "scroll"]) area.addEventListener(event, () => this.mark());
		select.addEventListener("change", () => this.mark());
	}

	get run() {
		return this.select.value.split("@")[0] || (lab.shown()?.name ?? "");
	}

	// Learns from a refusal; true if it was one for unseen characters.
	refused(error) {
		if (error.code !== "unknown_characters") return false;
		const known = this.unseen.get(this.run) ?? new Set();
		for (const { character } of error.details) known.add(character);
		this.unseen.set(this.run, known);
		this.mark();
		return true;
	}

	mark() {
		const unseen = this.unseen.get(this.run) ?? new Set();
		const most = Number(this.area.dataset.most);
		const parts = [];
		const found = new Set();
		let read = 0;
		for (const character of this.area.value) {
			read += 1;
			if (read > most) break;
			if (unseen.has(character)) {
				found.add(character);
				parts.push(create("mark", {}, character));
			} else if (typeof parts.at(-1) === "string") parts[parts.length - 1] += character;
			else parts.push(character);
		}
		const rest = [...this.area.value].slice(most);
		if (rest.length) parts.push(create("mark", {}, rest.join("")));
		// a line break at the very end would take no room
		this.backdrop.replaceChildren(...parts, "\u200b");
		this.backdrop.scrollTop = this.area.scrollTop;
		this.note.hidden = found.size === 0 && rest.length === 0;
		if (rest.length) {
			const shorten = create(
				"button",
				{ type: "button", onclick: () => this.set([...this.area.value].slice(0, most).join("")) },
				"Cut them off",
			);
			this.note.replaceChildren(
				`At most ${number(most, 0)} characters can be read: ${number(rest.length, 0)} too many. `,
				shorten,
			);
		}
		if (found.size === 0 || rest.length) return;
		const leave = create("button", { type: "button", onclick: () => this.leaveOut(unseen) }, "Leave them out");
		const names = [...found].map((character) => `“${visible(character)}”`).join(", ");
		this.note.replaceChildren(`${this.run} has never seen ${names}. `, leave);
	}

	leaveOut(unseen) {
		this.set([...this.area.value].filter((character) => !unseen.has(character)).join(""));
		this.area.focus();
	}

	set(text) {
		this.area.value = text;
		this.mark();
	}
}
