// URL fragments of the page: a view, the chosen run and parameters, such as "#write?run=notes&prompt=The%20".

import { lab } from "./lab.js";

// The fragment of a view, with the chosen run and other parameters.
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

// Chooses the run for all views; "" means the one in training, or the newest.
export function chooseRun(run) {
	lab.chosen = run;
	history.replaceState(null, "", addressOf(parseAddress().view || "live"));
	lab.notify();
}
