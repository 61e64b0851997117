// Descriptions of a run.

import { groupOf, isTraining, lab, placeOf, secondsLeft } from "../lab.js";
import { count, duration, number, sizes, stateOf } from "../words.js";

// The state; for a queued run also its place in the queue and when it starts.
export function standing(run) {
	if (run.state !== "queued") return stateOf(run);
	const { place, seconds } = placeOf(run);
	const start = seconds === null ? "waits for a worker" : `starts in about ${duration(seconds)}`;
	return `number ${place} in the queue, ${start}`;
}

export function facts(run) {
	const found = [
		sizes(run),
		`${run.corpus}, ${count(run.characters, "character")}`,
		`${run.steps ? `${number(run.step, 0)} of ` : ""}${count(run.steps || run.step, "update")}`,
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
	if (members.length) found.push(`${finished} of ${members.length} separately trained members are finished`);
	else if (run.parts.length) found.push(`merged from ${run.parts.join(", ")}`);
	return found;
}
