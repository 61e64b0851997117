// A small loss curve without axes, with the 5-gram's loss as a dashed line.

const WIDTH = 220;
const HEIGHT = 90;

// `svg` has three paths, `curve` is the answer of /loss-curve.json, `fraction` the progress of the run. The last
// point up to `step` is marked.
export function sketch(svg, curve, fraction, step) {
	const name = curve.points.some((point) => point.validation_loss !== null) ? "validation_loss" : "smooth_loss";
	const points = curve.points.filter((point) => typeof point[name] === "number");
	const { uniform, "5-gram": ngram } = curve.baselines;
	if (uniform && points[0]?.step > 0) points.unshift({ step: 0, [name]: uniform });
	for (const path of svg.children) path.setAttribute("d", "");
	if (points.length < 2) return;
	const losses = points.map((point) => point[name]);
	const low = Math.min(...losses, ngram ?? Number.POSITIVE_INFINITY);
	const high = Math.max(...losses);
	const x = (at) => (3 + ((WIDTH - 6) * Math.max(0.05, fraction) * at) / points.at(-1).step).toFixed(1);
	const y = (loss) => (5 + ((HEIGHT - 10) * (high - loss)) / (high - low || 1)).toFixed(1);
	const path = points.map((point) => `${x(point.step)} ${y(point[name])}`).join("L");
	const marked = points.findLast((point) => point.step <= step) ?? points[0];
	const [yardstick, line, now] = svg.children;
	yardstick.setAttribute("d", ngram ? `M0 ${y(ngram)}H${WIDTH}` : "");
	line.setAttribute("d", `M${path}`);
	// a line of length 0 with round caps is a dot that is not stretched with the picture
	now.setAttribute("d", `M${x(marked.step)} ${y(marked[name])}h0`);
}
