// Runs the check and shows it as a picture and a table.

import { darkScheme, fillRows, setText, showPicture } from "./dom.js";
import { getJson } from "./http.js";
import { exponential, number } from "./words.js";

const page = document.querySelector("[data-method]");
const query = new URLSearchParams({ method: page.dataset.method });
if (page.dataset.model) query.set("model", page.dataset.model);
if (page.dataset.cell) query.set("cell", page.dataset.cell);

function show(report) {
	const failed = report.parameters.filter((row) => !row.passed);
	const verdict = document.getElementById("verdict");
	verdict.textContent = failed.length
		? `${failed.length} of ${report.parameters.length} are above their limit`
		: `all ${report.parameters.length} are right`;
	verdict.className = failed.length ? "bad" : "good";
	setText(
		"setting",
		`${report.model}: ${report.cell}, ${report.layers} × ${report.hidden} units, ` +
			`${report.sequence_length} characters, ` +
			`K = ${report.vocabulary}; h = ${report.step_size.toExponential()}; ${report.seconds} s`,
	);
	fillRows(
		document.getElementById("parameters"),
		report.parameters.map((row) => [
			{ text: row.name, className: "name" },
			row.shape.join(" × "),
			exponential(row.relative_error),
			exponential(row.limit),
			exponential(row.assignment_figure),
			number(row.checked, 0),
			{ text: row.passed ? "right" : "wrong", className: row.passed ? "good" : "bad" },
		]),
	);
	for (const element of document.querySelectorAll(".result")) element.hidden = false;
	draw();
}

function draw() {
	showPicture(document.getElementById("picture"), `/gradcheck.svg?${query}`);
}

const began = Date.now();
const clock = window.setInterval(() => {
	setText("verdict", `checking every parameter … ${Math.round((Date.now() - began) / 1000)} s`);
}, 1000);
getJson(`/gradcheck?${query}`)
	.finally(() => window.clearInterval(clock))
	.then(show)
	.catch((error) => setText("verdict", error.message));
darkScheme.addEventListener("change", draw);
