// A field that chooses a network of the run that the page is about: its newest, its best, or one of its steps.

import { setOptions } from "../dom.js";
import { number } from "../words.js";

export function listNetworks(select, run) {
	const options = [];
	if (run?.newest) options.push([run.name, `newest (${number(run.newest.step, 0)})`]);
	if (run?.best && run.best.step !== run.newest?.step)
		options.push([`${run.name}@best`, `best (${number(run.best.step, 0)})`]);
	for (const step of run?.newest ? [...run.checkpoints].reverse() : [])
		options.push([`${run.name}@${step}`, `after ${number(step, 0)} updates`]);
	const gone = select.value; // stays chosen, and says so: what is shown was made with it
	if (run && gone.split("@")[0] === run.name && !options.some(([value]) => value === gone))
		options.push([gone, `${gone} (deleted)`]);
	setOptions(select, options);
}

export function chooseNetwork(select, value) {
	select.value = value;
	if (value && select.value !== value) {
		select.append(new Option(`${value} (deleted)`, value));
		select.value = value;
	}
}
