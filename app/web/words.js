// Formats numbers, times, networks and characters for people.

export function number(value, digits = 3) {
	if (value === null || value === undefined) return "–";
	return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// "1 update", "2,000 updates"
export const count = (value, noun) => `${number(value, 0)} ${noun}${value === 1 ? "" : "s"}`;

// [run, step] of "run@step"
export const parseModel = (model) => model.split("@");

export const percent = (share) => `${Math.round(100 * share)}%`;
export const percentDone = (run) => `${Math.floor(100 * run.fraction)}%`;

// The probability of a log-probability.
export function chance(logprob) {
	const share = 100 * Math.exp(logprob);
	if (share >= 99.95) return "100%";
	return share < 0.1 ? "<0.1%" : `${share.toFixed(1)}%`;
}

export function exponential(value) {
	if (value === null) return "–";
	return value === 0 ? "0" : value.toExponential(2);
}

export function duration(seconds) {
	if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
	if (seconds >= 5400) return `${number(seconds / 3600, 1)} h`;
	return `${number(seconds / 60, seconds < 600 && seconds % 60 ? 1 : 0)} min`;
}

export const cellName = (name) => (name === "elman" ? "Elman" : name.toUpperCase());

export function sizes({ cell, hidden, layers, members }) {
	const many = members > 1 ? `${members} networks side by side, each with ` : "";
	return `${many}${layers > 1 ? `${layers} layers of ` : ""}${count(hidden, `${cellName(cell)} unit`)}`;
}

export function stateOf(run) {
	if (run.stale) return "worker silent";
	return run.state === "training" ? `learning, ${percentDone(run)}` : run.state;
}

// The name of an invisible character, or the character.
export const visible = (character) => ({ " ": "space", "\n": "line end", "\t": "tab" })[character] ?? character;
