// Helpers for elements. Generated text is inserted as text, never as markup.

import { ROOT } from "./http.js";

export const at = (id) => document.getElementById(id);

export function setText(id, text) {
	at(id).textContent = text;
}

export const on = (id, event, handler) => at(id).addEventListener(event, handler);

// Calls `handler` instead of the browser's own submission of a form.
export function onSubmit(form, handler) {
	form.addEventListener("submit", (event) => {
		event.preventDefault();
		handler(event);
	});
}

// Creates an element with attributes and children.
export function create(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (value === false || value === null || value === undefined) continue;
		if (name === "onclick") element.addEventListener("click", value);
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children);
	return element;
}

// A cell is a text, or {text, className}.
export function fillRows(body, rows) {
	const cell = (value) => create("td", { class: value?.className }, value?.text ?? value);
	body.replaceChildren(...rows.map((cells) => create("tr", {}, ...cells.map(cell))));
}

// Sets the options of a select or an optgroup, as [value, label]. Keeps the selection if it still exists, and changes
// only options that differ, because the list may be open.
export function setOptions(list, options) {
	const select = list.closest("select");
	const before = select.value;
	while (list.children.length > options.length) list.lastElementChild.remove();
	for (const [index, [value, label]] of options.entries()) {
		const option = list.children[index] ?? list.appendChild(new Option("", value));
		if (option.value !== value) option.value = value;
		if (option.text !== label) option.text = label;
	}
	if (select.value === before) return;
	select.value = before;
	if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// Enter submits the form of a text area; Shift+Enter inserts a line break.
export function submitOnEnter(field) {
	field.addEventListener("keydown", (event) => {
		if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
		event.preventDefault();
		field.form.requestSubmit();
	});
}

// Saves a file on the user's disk.
export function download(blob, name) {
	const link = create("a", { href: URL.createObjectURL(blob), download: name });
	link.click();
	window.setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");

// Loads a picture for the current width and colours. The old one stays until then, to avoid flicker.
export function showPicture(image, url) {
	const next = new Image();
	next.onload = () => {
		for (const source of image.parentElement.querySelectorAll("source")) source.remove();
		image.src = next.src;
	};
	const shape = image.closest("figure, div").clientWidth < 600 ? "narrow" : "wide";
	next.src = `${ROOT}${url}&shape=${shape}&theme=${darkScheme.matches ? "dark" : "light"}`;
}

// While the page is visible, calls `work` now and `pause()` milliseconds after each end.
// Returns a function that calls it immediately.
export function repeat(work, pause) {
	let timer;
	const turn = async () => {
		window.clearTimeout(timer);
		if (!document.hidden) await work();
		timer = window.setTimeout(turn, pause());
	};
	document.addEventListener("visibilitychange", () => document.hidden || turn());
	turn();
	return turn;
}
