// The field that chooses the run for all views, and the page title, which names it.

import { chooseRun } from "../address.js";
import { at, setOptions } from "../dom.js";
import { isTraining, lab } from "../lab.js";
import { percentDone, stateOf } from "../words.js";

const select = at("run");

function list() {
	const automatic = lab.automatic();
	const options = [["", `${automatic && isTraining(automatic) ? "Now" : "Newest"}: ${automatic?.name}`]];
	for (const run of [...lab.runs].reverse())
		options.push([run.name, `${run.name} · ${isTraining(run) ? percentDone(run) : stateOf(run)}`]);
	if (lab.chosen && lab.known && !lab.run(lab.chosen)) options.push([lab.chosen, `${lab.chosen} (deleted)`]);
	setOptions(select, options);
	select.value = lab.chosen;
	select.parentElement.classList.toggle("unknown", lab.runs.length === 0);
	// progress in the title, for users in another tab
	const run = lab.shown();
	document.title = run && isTraining(run) ? `${percentDone(run)} · ${run.name} · Charloom` : "Charloom";
}

lab.onChange(list);
select.addEventListener("change", () => chooseRun(select.value));
