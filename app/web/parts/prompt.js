// A text box that reports characters that the chosen model has never seen, and text that is too long.

import { create } from "../dom.js";
import { lab } from "../lab.js";
import { number, parseModel, visible } from "../words.js";

export class PromptBox {
	// `note` shows the problem, with a button that fixes it.
	constructor(area, note, select) {
		Object.assign(this, { area, note, select });
		this.unseen = new Map(); // run -> refused characters
		for (const element of [area, select]) element.addEventListener("input", () => this.check());
		if (area.value) this.check(); // typed before this module was loaded
	}

	get run() {
		return parseModel(this.select.value)[0] || (lab.shown()?.name ?? "");
	}

	// Remembers refused characters; false if that is not why the request was refused.
	refused(error) {
		if (error.code !== "unknown_characters") return false;
		const known = this.unseen.get(this.run) ?? [];
		this.unseen.set(this.run, [...known, ...error.details.map(({ character }) => character)]);
		this.check();
		return true;
	}

	check() {
		const characters = [...this.area.value];
		const most = Number(this.area.dataset.most);
		const unseen = new Set(this.unseen.get(this.run));
		const found = [...unseen].filter((character) => characters.includes(character));
		const tooMany = characters.length - most;
		this.note.hidden = tooMany <= 0 && !found.length;
		if (tooMany > 0) {
			const message = `At most ${number(most, 0)} characters can be read: ${number(tooMany, 0)} too many. `;
			this.offer(message, "Cut them off", characters.slice(0, most));
		} else if (found.length) {
			const names = found.map((character) => `“${visible(character)}”`).join(", ");
			const rest = characters.filter((character) => !unseen.has(character));
			this.offer(`${this.run} has never seen ${names}. `, "Leave them out", rest);
		}
	}

	offer(message, label, characters) {
		const fix = () => {
			this.set(characters.join(""));
			this.area.focus();
		};
		this.note.replaceChildren(message, create("button", { type: "button", onclick: fix }, label));
	}

	set(text) {
		this.area.value = text;
		this.check();
	}
}
