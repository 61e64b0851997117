// How numbers, times, networks and characters are written for people.

export function number(value, digits = 3) {
	if (value === null || value === undefined) return "–";
	return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const percent = (share) => `${Math.round(100 * share)}%`;

export function exponential(value) {
	if (value === null) return "–";
	return value === 0 ? "0" : value.toExponential(2);
}

export function duration(seconds) {
	if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
	return `${number(seconds / 60, seconds < 600 && seconds % 60 ? 1 : 0)} min`;
}

// The last held-out loss of a run, with the step at which it was measured where the run is further on.
export function heldOut(run, digits = 3) {
	const step = run.validation_step ?? run.step;
	const loss = number(run.validation_loss, digits);
	return run.validation_loss === null || step === run.step ? loss : `${loss} at step ${number(step, 0)}`;
}

export const cellName = (name) => (name === "elman" ? "Elman" : name.toUpperCase());

export function sizes({ cell, hidden, layers, members }) {
	const many = members > 1 ? `${members} networks side by side, each of ` : "";
	return `${many}${layers > 1 ? `${layers} layers of ` : ""}${hidden} ${cellName(cell)} units`;
}

export function stateOf(run) {
	if (run.stale) return "worker silent";
	return run.state === "training" ? `learning, ${Math.floor(100 * run.fraction)}%` : run.state;
}

// The name of a character that cannot be seen.
export const visible = (character) => ({ " ": "space", "\n": "line end", "\t": "tab" })[character] ?? character;
