// The dialog that forks a run, with changed settings or another text.

import { at, on, onSubmit, setOptions, setText } from "../dom.js";
import { getJson, runUrl } from "../http.js";
import { lab } from "../lab.js";
import { count } from "../words.js";

const form = at("fork-form");
let parent = "";

export function fork(name) {
	const run = lab.run(name);
	parent = name;
	setText("fork-title", `Fork ${name}`);
	setText("fork-made", "");
	form.reset();
	// the best checkpoint of several members is merged and cannot be trained further
	const best = run.best && run.members === 1 ? [["best", "best"]] : [];
	const steps = [...run.checkpoints].reverse().map((step) => [step, `after ${count(step, "update")}`]);
	setOptions(form.step.children[0], [["", "newest"], ...best]);
	setOptions(form.step.children[1], steps);
	form.step.value = "";
	form.name.placeholder = `${name}-fork`;
	at("fork").showModal();
}

async function start() {
	const body = new FormData();
	for (const name of ["step", "name", "learning_rate"]) if (form[name].value) body.append(name, form[name].value);
	if (form.amount.value) body.append(form.unit.value, form.amount.value);
	for (const file of form.file.files) body.append("file", file);
	setText("fork-made", "sending …");
	try {
		const run = await getJson(`${runUrl(parent)}/fork`, { method: "POST", body });
		at("fork").close();
		const findings = run.findings.map((finding) => ` ${finding.message}.`);
		setText("runs-made", `${run.name} is queued.${findings.join("")}`);
		lab.now();
	} catch (error) {
		setText("fork-made", error.message);
	}
}

onSubmit(form, () => {
	start();
});
on("fork-no", "click", () => at("fork").close());
