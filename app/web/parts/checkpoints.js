// A field that chooses a checkpoint of the shown run: the newest, the best, or a step.

import { setOptions } from "../dom.js";
import { count, number, parseModel } from "../words.js";

export function listCheckpoints(select, run) {
	const options = [];
	if (run?.newest) options.push([run.name, `newest (${number(run.newest.step, 0)})`]);
	if (run?.best && run.best.step !== run.newest?.step)
		options.push([`${run.name}@best`, `best (${number(run.best.step, 0)})`]);
	const steps = run?.newest ? [...run.checkpoints].reverse() : [];
	const earlier = steps.map((step) => [`${run.name}@${step}`, `after ${count(step, "update")}`]);
	const gone = select.value; // stays chosen although deleted: the text shown is by it
	if (run && parseModel(gone)[0] === run.name && ![...options, ...earlier].some(([value]) => value === gone))
		earlier.push([gone, `${gone} (deleted)`]);
	setOptions(select.children[0], options);
	setOptions(select.children[1], earlier);
	select.form.querySelector("[type=submit]").disabled = !run?.newest;
}

export function chooseCheckpoint(select, value) {
	select.value = value;
	if (value && select.value !== value) {
		select.lastElementChild.append(new Option(`${value} (deleted)`, value));
		select.value = value;
	}
}
