// The one field that chooses a run for all views, and the title of the page, which names it.

import { chooseRun } from "../address.js";
import { at } from "../dom.js";
import { isTraining, lab } from "../lab.js";
import { stateOf } from "../words.js";

const select = at("run");

// Options keep their place in the list and change only where they must: the list may be open.
function list() {
	const automatic = lab.automatic();
	const wanted = [["", `${automatic && isTraining(automatic) ? "Now" : "Newest"}: ${automatic?.name}`]];
	const state = (run) => (isTraining(run) ? `${Math.floor(100 * run.fraction)}%` : stateOf(run));
	for (const run of [...lab.runs].reverse()) wanted.push([run.name, `${run.name} · ${state(run)}`]);
	if (lab.chosen && lab.known && !lab.run(lab.chosen)) wanted.push([lab.chosen, `${lab.chosen} (deleted)`]);
	while (select.options.length > wanted.length) select.options[select.options.length - 1].remove();
	for (const [index, [value, label]] of wanted.entries()) {
		const option = select.options[index] ?? select.appendChild(new Option("", value));
		if (option.value !== value) option.value = value;
		if (option.text !== label) option.text = label;
	}
	if (select.value !== lab.chosen) select.value = lab.chosen;
	select.parentElement.classList.toggle("unknown", lab.runs.length === 0);
}

// The tab shows how far the run is while one works elsewhere.
function name() {
	const run = lab.shown();
	document.title = run && isTraining(run) ? `${Math.floor(100 * run.fraction)}% · ${run.name} · Charloom` : "Charloom";
}

lab.onChange(list);
lab.onChange(name);
select.addEventListener("change", () => chooseRun(select.value));
