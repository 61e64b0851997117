// Addresses of the page: the view, the chosen run, and what the view is to show: "#write?run=notes&prompt=The%20".

import { lab } from "./lab.js";

// The address of a view, with the chosen run and further parameters.
export function addressOf(view, params = {}) {
	const all = new URLSearchParams(lab.chosen ? { run: lab.chosen, ...params } : params);
	return all.size ? `#${view}?${all}` : `#${view}`;
}

export function go(view, params = {}) {
	const address = addressOf(view, params);
	if (location.hash === address) window.dispatchEvent(new Event("hashchange"));
	else location.hash = address;
}

export function parseAddress() {
	const [view, query] = location.hash.slice(1).split(/\?(.*)/s);
	return { view, params: Object.fromEntries(new URLSearchParams(query)) };
}

// Chooses the run for all views; "" for the one that trains, or the newest.
export function chooseRun(run) {
	lab.chosen = run;
	history.replaceState(null, "", addressOf(parseAddress().view || "live"));
	lab.notify();
}
