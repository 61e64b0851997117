// A field that chooses a network of the run that the page is about: its newest, its best, or one of its steps.

import { number } from "../words.js";

const listed = new WeakMap(); // field -> what its options were made of

// Lists the networks of `run`; what was chosen stays chosen, as long as it is of this run.
export function listNetworks(select, run) {
	const key = JSON.stringify(run ? [run.name, run.newest?.step, run.best?.step, run.checkpoints] : []);
	if (listed.get(select) === key || document.activeElement === select) return;
	listed.set(select, key);
	const before = select.value;
	select.replaceChildren();
	if (!run?.newest) return;
	select.append(new Option(`newest (${number(run.newest.step, 0)})`, run.name));
	if (run.best && run.best.step !== run.newest.step) {
		select.append(new Option(`best (${number(run.best.step, 0)})`, `${run.name}@best`));
	}
	for (const step of [...run.checkpoints].reverse()) {
		select.append(new Option(`after ${number(step, 0)} updates`, `${run.name}@${step}`));
	}
	if (before.split("@")[0] === run.name) chooseNetwork(select, before);
}

// A network that was deleted stays chosen, and says so: what is shown was made with it.
export function chooseNetwork(select, value) {
	select.value = value;
	if (value && select.value !== value) {
		select.append(new Option(`${value} (deleted)`, value));
		select.value = value;
	}
}
