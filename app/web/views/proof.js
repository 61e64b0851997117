// The gradient check on demand, as a picture and a table.

import { at, darkScheme, fillRows, setText, showPicture } from "../dom.js";
import { getJson } from "../http.js";
import { cellName, exponential, number } from "../words.js";

const form = at("proof-form");
const cells = form.network.dataset.cells.split(" ");
const FRESH = [["", "the assignment's own"], ...cells.map((cell) => [`cell=${cell}`, `a fresh ${cellName(cell)}`])];
let picture = null;
let listed = "";

function list(runs) {
	const names = runs.filter((run) => run.newest).map((run) => run.name);
	if (JSON.stringify(names) === listed) return;
	listed = JSON.stringify(names);
	const before = form.network.value;
	const options = [...FRESH, ...names.map((name) => [`model=${encodeURIComponent(name)}`, `${name}, as trained`])];
	form.network.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
	form.network.value = options.some(([value]) => value === before) ? before : "";
}

async function check() {
	const query = `method=${form.method.value}${form.network.value && `&${form.network.value}`}`;
	const button = form.querySelector("button");
	const verdict = at("proof-verdict");
	const began = Date.now();
	const clock = window.setInterval(() => {
		const seconds = Math.round((Date.now() - began) / 1000);
		verdict.textContent = `nudging every parameter and measuring the loss again … ${seconds} s`;
	}, 1000);
	verdict.className = "made";
	at("proof-progress").hidden = false;
	verdict.textContent = "nudging every parameter and measuring the loss again …";
	button.disabled = true;
	try {
		const report = await getJson(`/gradcheck?${query}`);
		picture = `/gradcheck.svg?${query}`;
		show(report);
	} catch (error) {
		verdict.textContent = error.message;
	} finally {
		window.clearInterval(clock);
		at("proof-progress").hidden = true;
		button.disabled = false;
	}
}

// The assignment's own names where there is one layer.
const nameOf = ({ name }, { layers }) => (layers === 1 ? name.split(".").at(-1) : name);

function show(report) {
	const wrong = report.parameters.filter((row) => !row.passed).length;
	const elements = report.parameters.reduce((sum, row) => sum + row.checked, 0);
	const count = report.parameters.length;
	const verdict = wrong ? `${wrong} of ${count} are above their limit` : `All ${count} are right`;
	const network = `${report.cell}, ${report.layers} × ${report.hidden} units`;
	at("proof-verdict").className = wrong ? "made bad" : "made good";
	setText("proof-verdict", `${verdict}: ${network}, ${number(elements, 0)} elements compared in ${report.seconds} s.`);
	fillRows(
		at("proof-rows"),
		report.parameters.map((row) => [
			{ text: nameOf(row, report), className: "name" },
			exponential(row.relative_error),
			exponential(row.limit),
			exponential(row.assignment_figure),
			{ text: row.passed ? "right" : "wrong", className: row.passed ? "good" : "bad" },
		]),
	);
	at("proof-shown").hidden = false;
	draw();
}

function draw() {
	if (picture) showPicture(at("proof-picture"), picture);
}

form.addEventListener("submit", (event) => {
	event.preventDefault();
	check();
});
darkScheme.addEventListener("change", draw);
list([]);

export const view = {
	open() {},

	update(_, runs) {
		list(runs);
	},

	close() {},
};
