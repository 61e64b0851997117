// The gradient check on demand, as a picture and a table.

import { at, darkScheme, onSubmit, setOptions, showPicture } from "../dom.js";
import { check, showRows } from "../parts/gradients.js";
import { cellName } from "../words.js";

const form = at("proof-form");
const cells = form.network.dataset.cells.split(" ");
const FRESH = [["", "the assignment's"], ...cells.map((cell) => [`cell=${cell}`, `a new ${cellName(cell)}`])];
let picture = null;

function draw() {
	if (picture) showPicture(at("proof-picture"), picture);
}

onSubmit(form, async () => {
	const query = `method=${form.method.value}${form.network.value && `&${form.network.value}`}`;
	const button = form.querySelector("button");
	at("proof-verdict").className = "made";
	at("proof-progress").hidden = false;
	button.disabled = true;
	const report = await check(query, at("proof-verdict"));
	at("proof-progress").hidden = true;
	button.disabled = false;
	if (!report) return;
	showRows(at("proof-rows"), report);
	at("proof-shown").hidden = false;
	picture = `/gradcheck.svg?${query}`;
	draw();
});
darkScheme.addEventListener("change", draw);

export const view = {
	update(_, runs) {
		const trained = runs.filter((run) => run.newest).map(({ name }) => [`model=${encodeURIComponent(name)}`, name]);
		setOptions(form.network, [...FRESH, ...trained.map(([value, name]) => [value, `${name}, as trained`])]);
	},
};
