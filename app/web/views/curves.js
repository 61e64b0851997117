// The curves of one run or several, as they grow.

import { at, create, darkScheme, setText } from "../dom.js";
import { follows, onEvent } from "../events.js";
import { getJson, ROOT } from "../http.js";
import { lab } from "../lab.js";
import { LossChart } from "../parts/chart.js";
import { duration, heldOut, number } from "../words.js";

const curves = new Map();
let chosen = null; // names, once a person has chosen
let listed = "";
let before; // the run that the page was about
const LOAD_AGAIN = 3000; // milliseconds between whole curves of a run that is followed
const MOST_POINTS = 4000; // then the server thins them
const MOST_RUNS = 6; // shown together: more colours could not be told apart
const chart = new LossChart(at("curves-chart"), (text) => setText("curves-read", text), legend);

const shown = () => chosen ?? [lab.shown()?.name].filter(Boolean);
const colourOf = (name) => Math.max(0, shown().indexOf(name)) % MOST_RUNS;
const options = () => ({ x: at("curves-x").value, logX: at("curves-log-x").checked, logY: at("curves-log-y").checked });

function list(runs) {
	const key = JSON.stringify([runs.map((run) => run.name), shown()]);
	if (key === listed) return;
	listed = key;
	const boxes = runs.map((run) => {
		const box = create("input", { type: "checkbox", value: run.name });
		box.checked = shown().includes(run.name);
		box.disabled = !box.checked && shown().length >= MOST_RUNS;
		const title = box.disabled ? `At most ${MOST_RUNS} runs are shown together` : false;
		return create("label", { title }, box, create("span", { class: `run${colourOf(run.name)}` }, run.name));
	});
	const legend = at("curves-runs").querySelector("legend");
	at("curves-runs").replaceChildren(legend, ...boxes);
}

async function load(run) {
	const name = encodeURIComponent(run.name);
	const [curve, { samples }] = await Promise.all([
		getJson(`/loss-curve.json?model=${name}&points=800`),
		run.samples ? getJson(`/samples?model=${name}`) : { samples: [] },
	]);
	curve.samples = [...new Set(samples.map((sample) => sample.step))];
	curve.key = keyOf(run);
	curve.loaded = Date.now();
	curves.set(run.name, curve);
}

// What a curve was loaded for. The points of a run that is followed come by themselves.
const keyOf = (run) =>
	[run.state, run.samples, run.checkpoints.length, run.checkpoints.at(-1), follows(run.name) ? "" : run.step].join("-");

function isOld(run) {
	const curve = curves.get(run.name);
	if (!curve || curve.points.length > MOST_POINTS) return true;
	return curve.key !== keyOf(run) && (!follows(run.name) || Date.now() - curve.loaded > LOAD_AGAIN);
}

function append(name, point) {
	const curve = curves.get(name);
	if (!curve) return;
	const last = curve.points.at(-1)?.step ?? -1;
	if (point.step > last) curve.points.push(point);
	else if (point.step < last) curve.key = ""; // taken back: the whole of it again
}

async function update(runs) {
	const gone = [...curves.keys()].filter((name) => !lab.run(name));
	for (const name of gone) curves.delete(name);
	if (chosen) chosen = chosen.filter((name) => lab.run(name));
	if (chosen && !chosen.length) chosen = null;
	list(runs);
	const wanted = shown()
		.map((name) => lab.run(name))
		.filter((run) => run && run.step > 0);
	describe(lab.run(shown()[0]));
	try {
		await Promise.all(wanted.filter(isOld).map(load));
	} catch {
		return; // the runs are asked for again in a moment
	}
	draw();
}

function draw() {
	const known = shown()
		.map((name) => curves.get(name))
		.filter((curve) => curve?.points.length);
	at("curves-empty").hidden = known.length > 0;
	at("curves-shown").hidden = known.length === 0;
	if (!known.length) {
		const run = lab.run(shown()[0]);
		setText(
			"curves-empty",
			run
				? `${run.name} is ${run.state}: its curve begins with its first updates.`
				: "Nothing has been trained yet. The curve begins with the first updates of a worker.",
		);
		return;
	}
	for (const curve of known) curve.colour = colourOf(curve.run);
	chart.show(known.map(smoothed), options());
	at("curves-picture").href = `${ROOT}/loss-curve?model=${encodeURIComponent(known[0].run)}`;
	const warnings = known.flatMap((curve) => curve.warnings.map((warning) => `${curve.run}: ${warning}`));
	setText("curves-warnings", warnings.join(". "));
	at("curves-warnings").hidden = warnings.length === 0;
}

// The curve with its smooth line made anew, if a person has asked for another smoothing: a running mean of the
// losses that are shown, divided by the weights so far, so that its beginning is not pulled to the first value.
function smoothed(curve) {
	const keep = Number(at("curves-smoothing").value);
	setText("curves-smoothing-value", keep ? keep.toFixed(2) : "as recorded");
	if (!keep) return curve;
	let [sum, weight] = [0, 0];
	const points = curve.points.map((point) => {
		if (typeof point.loss !== "number") return point;
		sum = keep * sum + (1 - keep) * point.loss;
		weight = keep * weight + 1 - keep;
		return { ...point, smooth_loss: sum / weight };
	});
	return { ...curve, points };
}

function legend(rows) {
	const cells = rows.map(({ label, colour, value, at: place }) => {
		const swatch = create("i", { class: "swatch" });
		swatch.style.background = colour;
		const name = create("th", { scope: "row" }, swatch, ` ${label}`);
		return create("tr", {}, name, create("td", {}, number(value)), create("td", {}, number(place, 0)));
	});
	at("curves-legend").replaceChildren(...cells);
	setText("curves-along", at("curves-x").selectedOptions[0].textContent);
}

const COLUMNS = ["step", "seconds", "loss", "smooth_loss", "validation_loss", "learning_rate"];

// Every recorded point of the runs shown, for a spreadsheet.
async function save() {
	const lines = [["run", ...COLUMNS, "characters"].join(",")];
	try {
		for (const name of shown()) {
			const curve = await getJson(`/loss-curve.json?model=${encodeURIComponent(name)}&points=100000`);
			for (const point of curve.points) {
				const values = COLUMNS.map((column) => point[column] ?? "");
				lines.push([name, ...values, point.step * curve.characters_per_update].join(","));
			}
		}
	} catch (error) {
		setText("curves-read", error.message);
		return;
	}
	const file = new Blob([`${lines.join("\n")}\n`], { type: "text/csv" });
	const link = create("a", { href: URL.createObjectURL(file), download: `${shown().join("-").slice(0, 80)}.csv` });
	link.click();
	window.setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function describe(run) {
	at("curves-numbers").hidden = !run;
	at("curves-progress").hidden = run?.state !== "training";
	if (!run) return;
	const training = run.state === "training" && !run.stale;
	setText("curves-run", run.name);
	setText("curves-state", run.stale ? "worker silent" : run.state);
	setText("curves-step", number(run.step, 0) + (run.steps ? ` of ${number(run.steps, 0)}` : ""));
	setText("curves-smooth", number(run.smooth_loss));
	setText("curves-held-out", heldOut(run));
	setText("curves-speed", run.characters_per_second ? number(run.characters_per_second, 0) : "–");
	const left = run.expected_end ? Math.max(0, run.expected_end - Date.now() / 1000) : null;
	setText("curves-left", training && left !== null ? duration(left) : "–");
	at("curves-left").parentElement.hidden = !training;
	at("curves-progress").value = run.fraction;
}

at("curves-runs").addEventListener("change", () => {
	chosen = [...at("curves-runs").querySelectorAll("input:checked")].map((box) => box.value);
	update(lab.runs);
});
for (const id of ["curves-x", "curves-log-x", "curves-log-y"]) at(id).addEventListener("change", draw);
at("curves-smoothing").addEventListener("input", draw);
at("curves-csv").addEventListener("click", save);
at("zoom-in").addEventListener("click", () => chart.zoomBy(0.5));
at("zoom-out").addEventListener("click", () => chart.zoomBy(2));
at("zoom-all").addEventListener("click", () => chart.zoom(null));
darkScheme.addEventListener("change", draw);
onEvent((name, event, data) => event === "progress" && append(name, data));

export const view = {
	open() {},

	update(run, runs) {
		if (run?.name !== before) chosen = null;
		before = run?.name;
		update(runs);
	},

	close() {},
};
