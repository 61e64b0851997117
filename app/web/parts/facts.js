// What is known of a run, for people.

import { groupOf, isTraining, lab, placeOf, secondsLeft } from "../lab.js";
import { duration, number, sizes, stateOf } from "../words.js";

// The state in words; of a run that waits, its place in the queue and when it starts.
export function standing(run) {
	if (run.state !== "queued") return stateOf(run);
	const { place, seconds } = placeOf(run);
	const start = seconds === null ? "waits for a worker" : `starts in about ${duration(seconds)}`;
	return `number ${place} in the queue, ${start}`;
}

export function facts(run) {
	const found = [
		sizes(run),
		`${run.corpus}, ${number(run.characters, 0)} characters`,
		`${number(run.step, 0)}${run.steps ? ` of ${number(run.steps, 0)}` : ""} updates`,
	];
	const measured = run.validation_step ?? run.step;
	const when = measured === run.step ? "" : ` at update ${number(measured, 0)}`;
	if (run.validation_loss !== null) found.push(`held-out loss ${number(run.validation_loss, 2)}${when}`);
	else if (run.smooth_loss !== null) found.push(`smooth loss ${number(run.smooth_loss, 2)}`);
	if (isTraining(run) && run.characters_per_second)
		found.push(`${number(run.characters_per_second, 0)} characters a second`);
	if (isTraining(run) && run.expected_end) found.push(`${duration(secondsLeft(run))} left`);
	if (run.parent) found.push(`forked from ${run.parent}`);
	const members = lab.runs.filter((member) => groupOf(member) === run);
	const finished = members.filter((member) => member.state === "finished").length;
	if (members.length) found.push(`${finished} of ${members.length} members trained apart are finished`);
	else if (run.parts.length) found.push(`merged from ${run.parts.join(", ")}`);
	return found;
}
