// A field that chooses a network of the run that is shown: its newest or best, or in a second group a step.

import { setOptions } from "../dom.js";
import { number } from "../words.js";

export function listNetworks(select, run) {
	const options = [];
	if (run?.newest) options.push([run.name, `newest (${number(run.newest.step, 0)})`]);
	if (run?.best && run.best.step !== run.newest?.step)
		options.push([`${run.name}@best`, `best (${number(run.best.step, 0)})`]);
	const steps = run?.newest ? [...run.checkpoints].reverse() : [];
	const earlier = steps.map((step) => [`${run.name}@${step}`, `after ${number(step, 0)} updates`]);
	const gone = select.value; // stays chosen, and says so: what is shown was made with it
	if (run && gone.split("@")[0] === run.name && ![...options, ...earlier].some(([value]) => value === gone))
		earlier.push([gone, `${gone} (deleted)`]);
	setOptions(select.children[0], options);
	setOptions(select.children[1], earlier);
	select.form.querySelector("[type=submit]").disabled = !run?.newest;
}

export function chooseNetwork(select, value) {
	select.value = value;
	if (value && select.value !== value) {
		select.lastElementChild.append(new Option(`${value} (deleted)`, value));
		select.value = value;
	}
}
