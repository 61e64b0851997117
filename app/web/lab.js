// The current runs of the store, which of them the page shows, and whether the server answers.

import { repeat } from "./dom.js";
import { getJson } from "./http.js";

export const isBusy = (run) => run.state === "training" || run.state === "queued";
export const isTraining = (run) => run.state === "training" && !run.stale;

export const secondsLeft = (run) => run.seconds_left ?? 0;

// Whether a worker trains `one` before `other`: runs in training come first, then higher priority, then age.
function isBefore(one, other) {
	if (one.state === "training") return true;
	if (one.priority !== other.priority) return one.priority > other.priority;
	return lab.runs.indexOf(one) < lab.runs.indexOf(other);
}

// The group of a separately trained member, which is shown instead of it.
export const groupOf = (run) => run.group && lab.run(run.group);

// A queued run's place, and about when it starts, in seconds, if the number of workers stays the same.
export function placeOf(run) {
	const before = lab.runs.filter(
		(other) => other.name !== run.name && isBusy(other) && !groupOf(other) && isBefore(other, run),
	);
	before.sort((one, other) => (isBefore(one, other) ? -1 : 1));
	const free = before.filter(isTraining).map(secondsLeft); // seconds until each worker is free
	for (const other of free.length ? before : []) {
		if (isTraining(other)) continue;
		free.sort((one, other) => one - other);
		free[0] += other.seconds_left;
	}
	const queued = before.filter((other) => other.state === "queued").length;
	return { place: queued + 1, seconds: free.length ? Math.min(...free) : null };
}

const PATIENCE = 10000; // milliseconds
const listeners = [];
let askedAt = 0;
let tries = 0;
let notifying = 0;
let refreshing = 0;

export const lab = {
	runs: [],
	known: false, // whether the list was ever loaded
	answers: true,
	refusal: "", // the server's message if it answers with an error
	idleSince: 0, // since when runs are queued but none is in training
	chosen: "", // the name of the run that the user chose, or ""
	now() {}, // loads the list immediately

	// Calls `listener()` whenever the runs or `answers` may have changed.
	onChange(listener) {
		listeners.push(listener);
	},

	notify() {
		window.clearTimeout(notifying);
		notifying = 0;
		for (const listener of listeners) listener();
	},

	// Notifies once for changes at about the same time.
	notifySoon() {
		if (!notifying) notifying = window.setTimeout(() => lab.notify(), 50);
	},

	// Reloads the list, at most every two seconds.
	refreshSoon() {
		const again = () => {
			refreshing = 0;
			lab.now();
		};
		if (!refreshing) refreshing = window.setTimeout(again, Math.max(0, askedAt + 2000 - Date.now()));
	},

	run(name) {
		return lab.runs.find((run) => run.name === name);
	},

	// The run in training, or the newest; undefined if there is none.
	automatic() {
		const single = (run) => isTraining(run) && !run.parts.length; // a group has no curve until it is merged
		return [single, (run) => run.serving, isBusy].map((is) => lab.runs.find(is)).find(Boolean) ?? lab.runs.at(-1);
	},

	// The run that all views show.
	shown() {
		return lab.run(lab.chosen) ?? lab.automatic();
	},

	async refresh() {
		try {
			askedAt = Date.now();
			lab.runs = (await getJson("/runs")).runs;
			lab.known = lab.answers = true;
			lab.refusal = "";
			tries = 0;
			const idle = lab.runs.some((run) => run.state === "queued") && !lab.runs.some((run) => run.state === "training");
			lab.idleSince = idle ? lab.idleSince || Date.now() : 0;
		} catch (error) {
			lab.answers = error.status !== 0;
			lab.refusal = lab.answers ? error.message : "";
		}
		lab.notify();
	},

	// Whether runs have been queued for longer than a worker needs to start one.
	lacksWorker() {
		return lab.idleSince > 0 && Date.now() - lab.idleSince > PATIENCE;
	},

	// Milliseconds until the next load; runs in training are also followed by events.
	pause() {
		if (lab.answers) return lab.runs.some(isTraining) ? 10000 : 3000;
		tries += 1;
		return 500 * Math.min(32, 2 ** tries);
	},

	start() {
		lab.now = repeat(lab.refresh, lab.pause);
		window.addEventListener("online", lab.now);
	},
};
