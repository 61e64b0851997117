// Follows unfinished runs by server-sent events, read with fetch because EventSource cannot send a key.

import { call, readEvents, runUrl } from "./http.js";
import { lab } from "./lab.js";

const MOST = 3; // of a browser's six connections per server
const OPEN = ["training", "queued", "paused"]; // states of runs to follow, in order of priority
const KNOWN = "step loss smooth_loss validation_loss seconds fraction characters_per_second seconds_left".split(" ");

const following = new Map(); // run -> AbortController
const places = new Map(); // run -> id of the last event
const listeners = [];

// Calls `listener(run, event, data)` for every event.
export function onEvent(listener) {
	listeners.push(listener);
}

function sync() {
	for (const name of places.keys()) if (!lab.run(name)) places.delete(name);
	const open = lab.runs.filter((run) => OPEN.includes(run.state));
	open.sort((one, other) => OPEN.indexOf(one.state) - OPEN.indexOf(other.state));
	const wanted = document.hidden || !lab.answers ? [] : open.slice(0, MOST).map((run) => run.name);
	for (const [name, controller] of following) if (!wanted.includes(name)) controller.abort();
	for (const name of wanted) if (!following.has(name)) follow(name);
}

// Reads events until the stream ends, then reloads the list of runs.
async function follow(name) {
	const controller = new AbortController();
	following.set(name, controller);
	const headers = { Accept: "text/event-stream" };
	if (places.has(name)) headers["Last-Event-ID"] = places.get(name);
	try {
		const response = await call(`${runUrl(name)}/events`, { headers, signal: controller.signal });
		for await (const { event, id, data } of readEvents(response)) {
			places.set(name, id);
			take(name, event, data);
		}
	} catch {
		// connection lost, run deleted, or a key is needed
	}
	following.delete(name);
	if (!controller.signal.aborted) lab.refreshSoon();
}

function take(name, event, data) {
	const run = lab.run(name);
	if (run && event === "progress")
		for (const field of KNOWN) if (data[field] !== undefined) run[field] = data[field] ?? run[field];
	if (run && event === "progress" && typeof data.validation_loss === "number") run.validation_step = data.step;
	if (run && event === "state" && data.state !== "deleted") Object.assign(run, data);
	if (event !== "progress") lab.refreshSoon();
	for (const listener of listeners) listener(name, event, data);
	lab.notifySoon();
}

document.addEventListener("visibilitychange", sync);
lab.onChange(sync);
