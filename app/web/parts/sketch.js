// A small loss curve without axes: one line, and what a 5-gram reaches as a dashed one.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 220;
const HEIGHT = 90;

function line(name, attributes) {
	const element = document.createElementNS(SVG, name);
	for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
	return element;
}

// `curve` is the answer of /loss-curve.json; `fraction` how much of the run is done; `step` is marked, if given.
export function sketch(svg, curve, fraction, step) {
	const name = curve.points.some((point) => point.validation_loss !== null) ? "validation_loss" : "smooth_loss";
	const points = curve.points.filter((point) => typeof point[name] === "number");
	const start = curve.baselines.uniform;
	if (start && points[0]?.step > 0) points.unshift({ step: 0, [name]: start });
	if (points.length < 2) {
		svg.replaceChildren();
		return;
	}
	const losses = points.map((point) => point[name]);
	const ngram = curve.baselines["5-gram"];
	const low = Math.min(...losses, ngram ?? Number.POSITIVE_INFINITY);
	const high = Math.max(...losses);
	const last = points.at(-1).step;
	const x = (at) => 3 + ((WIDTH - 6) * Math.max(0.05, fraction) * at) / last;
	const y = (loss) => 5 + ((HEIGHT - 10) * (high - loss)) / (high - low || 1);
	const path = points.map(
		(point, index) => `${index ? "L" : "M"}${x(point.step).toFixed(1)} ${y(point[name]).toFixed(1)}`,
	);
	const parts = [line("path", { d: path.join(""), class: "curve" })];
	if (ngram) parts.unshift(line("line", { x1: 0, x2: WIDTH, y1: y(ngram), y2: y(ngram), class: "yardstick" }));
	const marked = points.findLast((point) => point.step <= (step ?? last)) ?? points[0];
	// a line without length, with round ends: a dot that is not stretched with the picture
	parts.push(line("path", { d: `M${x(marked.step)} ${y(marked[name])}h0`, class: "now" }));
	svg.replaceChildren(...parts);
}
