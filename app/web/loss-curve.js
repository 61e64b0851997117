// Follows one run's training: numbers and picture change as points are added.

import { darkScheme, fillRows, repeat, setText, showPicture } from "./dom.js";
import { getJson } from "./http.js";
import { heldOut, number } from "./words.js";

const page = document.querySelector("[data-run]");
const image = document.getElementById("picture");
let shown = null;
let training = true;

async function update() {
	const run = encodeURIComponent(page.dataset.run);
	let curve;
	try {
		curve = await getJson(`/loss-curve.json?model=${run}&points=200`);
	} catch (error) {
		setText("state", `not up to date: ${error.message}`);
		return;
	}
	training = curve.state === "training" || curve.state === "queued";
	const key = curve.version + darkScheme.matches;
	if (key === shown) return;
	shown = key;
	showPicture(image, `/loss-curve.svg?model=${run}&version=${encodeURIComponent(curve.version)}`);
	describe(curve);
}

function describe(curve) {
	const known = (name) => curve.points.map((point) => point[name]).filter((value) => value !== null);
	const last = (name) => known(name).at(-1);
	const summed = last("summed_smooth_loss");
	setText("state", curve.state);
	setText("step", number(curve.step, 0));
	setText("smooth", number(last("smooth_loss")));
	setText("summed", number(summed, 2));
	document.getElementById("summed").parentElement.hidden = summed === undefined;
	const measured = curve.points.filter((point) => point.validation_loss !== null);
	const newest = measured.at(-1);
	if (newest) setText("held-out", heldOut({ ...newest, validation_step: newest.step, step: curve.step }));
	document.getElementById("held-out").parentElement.hidden = !newest;
	setText("best", curve.best ? number(curve.best[1]) : "–");
	for (const name of ["uniform", "unigram", "5-gram"]) {
		setText(name, number(curve.baselines[name], 2));
	}
	setText("warnings", curve.warnings.join(". "));
	document.getElementById("warnings").hidden = curve.warnings.length === 0;
	fillRows(
		document.getElementById("points"),
		spread(measured.length > 1 ? measured : curve.points, 20)
			.map((point) => [
				number(point.step, 0),
				number(point.seconds, 1),
				number(point.smooth_loss),
				number(point.validation_loss),
			])
			.reverse(),
	);
}

// At most `count` of the items, evenly spread from the first to the last.
function spread(items, count) {
	if (items.length <= count) return items;
	return Array.from({ length: count }, (_, i) => items[Math.round((i * (items.length - 1)) / (count - 1))]);
}

darkScheme.addEventListener("change", update);
repeat(update, () => (training ? 1500 : 10000));
