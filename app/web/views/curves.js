// The loss curves of one or more runs.

import { at, create, darkScheme, download, on, setText } from "../dom.js";
import { curveOf, ROOT, samplesOf } from "../http.js";
import { lab } from "../lab.js";
import { LossChart } from "../parts/chart.js";
import { facts, standing } from "../parts/facts.js";
import { number } from "../words.js";

const LOAD_AGAIN = 2000; // minimum milliseconds between loads of a curve
const POINTS = 600; // the server thins longer curves
const MOST_RUNS = 6; // more colours would be hard to distinguish
const COLUMNS = ["step", "seconds", "loss", "smooth_loss", "validation_loss", "learning_rate"];

const curves = new Map();
let chosen = null; // names, once the user has chosen
let before; // the run that the page showed
const chart = new LossChart(at("curves-chart"), legend);

const shown = () => chosen ?? [lab.shown()?.name].filter(Boolean);
const colourOf = (name) => Math.max(0, shown().indexOf(name));

// A check box per run. Elements are reused, to keep the focus.
function list(runs) {
	const boxes = at("curves-runs");
	for (const label of boxes.querySelectorAll("label")) if (!lab.run(label.textContent)) label.remove();
	for (const { name } of runs) {
		let label = [...boxes.querySelectorAll("label")].find((one) => one.textContent === name);
		if (!label) {
			label = create("label", {}, create("input", { type: "checkbox", value: name }), create("span", {}, name));
			boxes.append(label);
		}
		const [box, title] = label.children;
		box.checked = shown().includes(name);
		box.disabled = !box.checked && shown().length >= MOST_RUNS;
		title.style.setProperty("--run", `var(--run${colourOf(name)})`);
		label.title = box.disabled ? `At most ${MOST_RUNS} runs can be shown` : "";
	}
}

async function load(run) {
	const [curve, samples] = await Promise.all([curveOf(run.name, POINTS), run.samples ? samplesOf(run.name) : []]);
	curve.samples = [...new Set(samples.map((sample) => sample.step))];
	curve.key = keyOf(run);
	curve.loaded = Date.now();
	curves.set(run.name, curve);
}

const keyOf = (run) => `${run.state} ${run.step} ${run.samples} ${run.checkpoints}`; // identifies what was loaded

function isOld(run) {
	const curve = curves.get(run.name);
	return curve?.key !== keyOf(run) && !(Date.now() - curve?.loaded < LOAD_AGAIN);
}

async function update(runs) {
	for (const name of curves.keys()) if (!lab.run(name)) curves.delete(name);
	chosen = chosen?.filter((name) => lab.run(name)) ?? null;
	if (!chosen?.length) chosen = null;
	list(runs);
	const wanted = shown().map((name) => lab.run(name));
	describe(wanted[0]);
	try {
		await Promise.all(wanted.filter((run) => run.step > 0 && isOld(run)).map(load));
		draw();
	} catch {
		// the next update tries again
	}
}

function draw() {
	const known = shown()
		.map((name) => curves.get(name))
		.filter((curve) => curve?.points.length);
	at("curves-empty").hidden = known.length > 0;
	at("curves-shown").hidden = known.length === 0;
	const run = lab.run(shown()[0]);
	if (!known.length) {
		const waits = `${run?.name} is ${run?.state}: its curve begins with its first updates.`;
		setText("curves-empty", run ? waits : "Nothing has been trained yet. The curve begins with the first updates.");
		return;
	}
	for (const curve of known) curve.colour = colourOf(curve.run);
	chart.show(known.map(smoothed), at("curves-x").value, darkScheme.matches);
	at("curves-picture").href = `${ROOT}/loss-curve?model=${encodeURIComponent(known[0].run)}`;
	const warnings = known.flatMap((curve) => curve.warnings.map((warning) => `${curve.run}: ${warning}`));
	setText("curves-warnings", warnings.join(". "));
}

// Smooths a curve by a running mean, divided by the sum of its weights to remove the bias of its start.
function smoothed(curve) {
	const keep = Number(at("curves-smoothing").value);
	setText("curves-smoothing-value", keep ? keep.toFixed(2) : "off");
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

// Every recorded point of the runs shown, for a spreadsheet.
async function save() {
	const lines = [["run", ...COLUMNS, "characters"].join(",")];
	try {
		for (const name of shown()) {
			const curve = await curveOf(name, 100000);
			for (const point of curve.points) {
				const values = COLUMNS.map((column) => point[column] ?? "");
				lines.push([name, ...values, point.step * curve.characters_per_update].join(","));
			}
		}
		download(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }), `${shown().join("-").slice(0, 80)}.csv`);
	} catch (error) {
		setText("curves-warnings", error.message);
	}
}

function describe(run) {
	setText("curves-now", run ? [run.name, standing(run), ...facts(run)].join(" · ") : "");
}

on("curves-runs", "change", () => {
	chosen = [...at("curves-runs").querySelectorAll("input:checked")].map((box) => box.value);
	update(lab.runs);
});
for (const id of ["curves-x", "curves-smoothing"]) at(id).addEventListener("input", draw);
on("curves-csv", "click", save);
on("zoom-in", "click", () => chart.zoomBy(0.5));
on("zoom-out", "click", () => chart.zoomBy(2));
on("zoom-all", "click", () => chart.zoom(null));
darkScheme.addEventListener("change", draw);

export const view = {
	update(run, runs) {
		if (run?.name !== before) chosen = null;
		before = run?.name;
		update(runs);
	},
};
