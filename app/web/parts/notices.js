// The banner for problems: no answer from the server, no worker, or a silent worker.

import { at, on, setText } from "../dom.js";
import { lab } from "../lab.js";
import { number } from "../words.js";

function notice() {
	if (!lab.answers) return "The server does not answer. The page keeps trying.";
	if (lab.refusal) return lab.refusal;
	const silent = lab.runs.find((run) => run.stale);
	if (silent) {
		const step = number(silent.step, 0);
		return `The worker that trained ${silent.name} has stopped answering, at update ${step}. Writing still works.`;
	}
	const waiting = lab.runs.find((run) => run.state === "queued");
	if (waiting && lab.lacksWorker()) {
		return `No worker is running, so ${waiting.name} is not being trained. Start one with: charloom worker`;
	}
	return "";
}

function show() {
	const text = notice();
	if (at("banner-text").textContent !== text) setText("banner-text", text);
	at("banner").hidden = !text;
	at("banner-now").hidden = lab.answers;
}

lab.onChange(show);
on("banner-now", "click", () => lab.now());
