// Follows runs that are not over by server-sent events, which are read by fetch so that they can carry a key.

import { call, readEvents } from "./http.js";
import { lab } from "./lab.js";

const following = new Map(); // run -> AbortController
const listeners = [];

// Calls `listener(run, event, data)` for every event.
export function onEvent(listener) {
	listeners.push(listener);
}

export const follows = (name) => following.has(name);

const MOST = 3; // a browser opens six connections to a server, and others are needed
const LONGEST_WAIT = 16000;
const KNOWN = "step loss smooth_loss validation_loss seconds fraction characters_per_second expected_end".split(" ");
const places = new Map(); // run -> id of the last event that came

// The runs worth following: what is trained first, then what waits.
function worth(runs) {
	const order = (run) => ["training", "queued", "paused"].indexOf(run.state);
	return runs
		.filter((run) => order(run) >= 0)
		.sort((one, other) => order(one) - order(other))
		.slice(0, MOST)
		.map((run) => run.name);
}

function sync() {
	for (const name of places.keys()) if (!lab.run(name)) places.delete(name);
	const wanted = new Set(document.hidden ? [] : worth(lab.runs));
	for (const [name, controller] of following) if (!wanted.has(name)) controller.abort();
	for (const name of wanted) if (!follows(name)) follow(name);
}

async function follow(name) {
	const controller = new AbortController();
	following.set(name, controller);
	try {
		for (let tries = 0; ; tries += 1) {
			if (await listen(name, controller.signal, () => (tries = 0))) return;
			lab.refreshSoon();
			await wait(Math.min(LONGEST_WAIT, 1000 * 2 ** tries), controller.signal);
		}
	} catch (error) {
		if (error.name !== "AbortError") lab.refreshSoon(); // deleted, or a key is needed: the list tells
	} finally {
		following.delete(name);
	}
}

// True once the run is over. Raises what cannot be mended by trying again.
async function listen(name, signal, heard) {
	const headers = { Accept: "text/event-stream" };
	if (places.has(name)) headers["Last-Event-ID"] = places.get(name);
	try {
		const response = await call(`/runs/${encodeURIComponent(name)}/events`, { headers, signal });
		if (response.status === 204) return true;
		for await (const { event, id, data } of readEvents(response)) {
			heard();
			places.set(name, id);
			take(name, event, data);
			if (event === "state" && !["training", "queued", "paused"].includes(data.state)) return true;
		}
	} catch (error) {
		if (signal.aborted || [401, 403, 404].includes(error.status)) throw error;
	}
	return false;
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

// Ends early when the server is back.
function wait(milliseconds, signal) {
	return new Promise((resolve, reject) => {
		window.setTimeout(resolve, milliseconds);
		document.addEventListener("server-back", resolve, { once: true, signal });
		signal.addEventListener("abort", () => reject(signal.reason), { once: true });
	});
}

document.addEventListener("visibilitychange", () => sync());
lab.onChange(sync);
