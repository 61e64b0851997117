// Gradient checks and their rows, for the view Proof and the page /gradcheck.

import { fillRows } from "../dom.js";
import { getJson } from "../http.js";
import { exponential, number } from "../words.js";

// Runs a check and returns its report; `verdict` shows the time meanwhile.
export async function check(query, verdict) {
	const began = Date.now();
	const say = () => {
		const seconds = Math.round((Date.now() - began) / 1000);
		verdict.textContent = `Checking every parameter … ${seconds} s`;
	};
	const clock = window.setInterval(say, 1000);
	say();
	verdict.ariaBusy = "true"; // keeps screen readers from reading every second
	try {
		const report = await getJson(`/gradcheck?${query}`);
		const [count, wrong] = [report.parameters.length, report.parameters.filter((row) => !row.passed).length];
		const elements = report.parameters.reduce((sum, row) => sum + row.checked, 0);
		verdict.textContent =
			`${wrong ? `${wrong} of ${count} are above their limit` : `All ${count} passed`}: ` +
			`${report.model}, ${report.cell}, ${report.layers} × ${report.hidden} units, ${number(elements, 0)} ` +
			`derivatives over ${report.sequence_length} characters, h = ${report.step_size.toExponential()}, ` +
			`in ${report.seconds} s`;
		verdict.classList.add(wrong ? "bad" : "good");
		return report;
	} catch (error) {
		verdict.textContent = error.message;
		return null;
	} finally {
		window.clearInterval(clock);
		verdict.ariaBusy = "false";
	}
}

// With one layer, parameters have the assignment's names: W, not layer0.W.
export function showRows(body, report) {
	const rows = report.parameters.map((row) => [
		{ text: report.layers === 1 ? row.name.replace("layer0.", "") : row.name, className: "name" },
		exponential(row.relative_error),
		exponential(row.limit),
		exponential(row.assignment_figure),
		{ text: row.passed ? "passed" : "failed", className: row.passed ? "good" : "bad" },
	]);
	fillRows(body, rows);
}
