// Training on from a step of a run, with changed settings or another text.

import { at, setText } from "../dom.js";
import { getJson } from "../http.js";
import { lab } from "../lab.js";
import { number } from "../words.js";

const form = at("fork-form");
let parent = "";

export function fork(name) {
	const run = lab.run(name);
	parent = name;
	setText("fork-title", `Train on from ${name}`);
	setText("fork-made", "");
	// the best of several networks is kept merged, to be served: it cannot be trained on
	const best = run.best && run.members === 1 ? [new Option("its best", "best")] : [];
	const steps = [...run.checkpoints].reverse().map((step) => new Option(`after ${number(step, 0)} updates`, step));
	form.step.replaceChildren(new Option("its newest", ""), ...best, ...steps);
	form.reset();
	form.name.placeholder = `${name}-fork`;
	at("fork").showModal();
}

async function start() {
	const body = new FormData();
	for (const name of ["step", "name", "learning_rate"]) if (form[name].value) body.append(name, form[name].value);
	if (form.amount.value) body.append(form.unit.value, form.amount.value);
	for (const file of form.file.files) body.append("file", file);
	at("fork-made").classList.remove("bad");
	setText("fork-made", "sending …");
	try {
		const run = await getJson(`/runs/${encodeURIComponent(parent)}/fork`, { method: "POST", body });
		at("fork").close();
		setText(
			"runs-made",
			[`${run.name} waits for its turn.`, ...run.findings.map((finding) => `${finding.message}.`)].join(" "),
		);
		lab.now();
	} catch (error) {
		at("fork-made").classList.add("bad");
		setText("fork-made", error.message);
	}
}

form.addEventListener("submit", (event) => {
	event.preventDefault();
	start();
});
at("fork-no").addEventListener("click", () => at("fork").close());
