// A uPlot chart of the losses of several runs, with zoom and the values under the pointer.

const LINES = [
	{ name: "loss", label: "loss", width: 1 },
	{ name: "smooth_loss", label: "smooth", width: 2 },
	{ name: "validation_loss", label: "held-out", width: 2, dash: [6, 4], points: true },
];
const BASELINES = { unigram: "single characters" };

const isKnown = (value) => value !== undefined && value !== null;
const linesOf = (curve) => LINES.filter((line) => curve.points.some((point) => isKnown(point[line.name])));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function short(value) {
	if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
	return value >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : String(+value.toPrecision(4));
}

export class LossChart {
	// `legend(rows)` gets each line's value under the pointer, or its newest: {label, colour, value, at}.
	constructor(element, legend) {
		Object.assign(this, { element, legend, curves: [], plot: null, shape: "", zoomed: null });
		new ResizeObserver(() => this.plot?.setSize(this.size())).observe(element);
	}

	// The position of a point on the x axis.
	along(curve, point) {
		return { step: point.step, seconds: point.seconds, characters: point.step * curve.characters_per_update }[
			this.axis
		];
	}

	// Rebuilds the plot only if more than the points has changed.
	show(curves, axis, dark) {
		this.curves = curves;
		this.axis = axis;
		const shape = JSON.stringify([curves.map((curve) => [curve.run, curve.colour, linesOf(curve)]), axis, dark]);
		const tables = curves.flatMap((curve) =>
			linesOf(curve).map(({ name }) => {
				const points = curve.points.filter((point) => isKnown(point[name]));
				return [points.map((point) => this.along(curve, point)), points.map((point) => point[name])];
			}),
		);
		const data = uPlot.join(tables);
		if (shape === this.shape) {
			this.plot.setData(data, false);
			this.zoom(this.zoomed);
		} else {
			this.shape = shape;
			this.zoomed = null;
			this.plot?.destroy();
			this.lines = curves.flatMap((curve) => this.series(curve));
			this.plot = new uPlot(this.settings(), data, this.element);
		}
		this.legend(this.rows());
	}

	series(curve) {
		const own = colour(`--run${curve.colour}`);
		return linesOf(curve).map(({ name, label, width, dash, points }) => ({
			label: this.curves.length > 1 ? `${curve.run} ${label}` : label,
			colour: own,
			stroke: name === "loss" ? `color-mix(in srgb, ${own} 35%, transparent)` : own,
			width,
			dash,
			points: { show: Boolean(points), size: 6, fill: own },
		}));
	}

	settings() {
		const axis = {
			stroke: colour("--faint"),
			grid: { stroke: colour("--line"), width: 1 },
			ticks: { show: false },
			font: "12px system-ui",
			values: (_, ticks) => ticks.map(short),
		};
		return {
			...this.size(),
			scales: {
				x: { time: false, range: (_, low, high) => this.zoomed ?? [Math.min(low, 0), Math.max(high, 1)] },
				y: { range: (_, low, high) => this.rangeOf(low, high) },
			},
			series: [{}, ...this.lines],
			axes: [
				{ ...axis, size: 34 },
				{ ...axis, size: 44 },
			],
			cursor: {
				drag: { x: true, y: false, setScale: false },
				points: { size: 7 },
				dataIdx: (plot, series, at) => this.nearest(plot.data[series], at),
			},
			legend: { show: false },
			hooks: {
				draw: [() => this.marks()],
				setSelect: [(plot) => this.select(plot)],
				setCursor: [() => this.plot && this.legend(this.rows())],
			},
		};
	}

	// Includes all baselines, unless zoomed.
	rangeOf(low, high) {
		if (!isKnown(low)) return [0.5, 5];
		const also = this.zoomed ? [] : this.curves.flatMap((curve) => Object.values(curve.baselines));
		const [bottom, top] = [Math.min(low, ...also), Math.max(high, ...also)];
		const pad = 0.06 * (top - bottom || 1);
		return [Math.max(0, bottom - pad), top + pad];
	}

	size() {
		const width = Math.max(240, this.element.clientWidth);
		return { width, height: width < 600 ? 250 : 340 };
	}

	select(plot) {
		const { left, width } = plot.select;
		if (width < 8) return;
		plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
		this.zoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
	}

	// Shows a range of the x axis, or all of it for null, and rescales the y axis.
	zoom(range) {
		this.zoomed = range;
		const x = this.plot.data[0];
		const [min, max] = range ?? [x[0], x.at(-1)];
		this.plot.setScale("x", { min, max });
	}

	// Zooms around the newest point.
	zoomBy(factor) {
		const { min, max } = this.plot.scales.x;
		const from = max - (max - min) * factor;
		this.zoom(from <= 0 ? null : [from, max]);
	}

	rows() {
		const [along, ...columns] = this.plot.data;
		const cursor = this.plot.cursor.idx;
		return this.lines.map(({ label, colour }, index) => {
			const place = isKnown(cursor) ? this.nearest(columns[index], cursor) : columns[index].findLastIndex(isKnown);
			return { label, colour, value: columns[index][place] ?? null, at: along[place] ?? null };
		});
	}

	// Runs have points at different places: finds the closest one of a line, within the line.
	nearest(values, at) {
		const left = values.findLastIndex((value, index) => index <= at && isKnown(value));
		const right = values.findIndex((value, index) => index >= at && isKnown(value));
		if (left < 0 || right < 0) return at;
		return at - left <= right - at ? left : right;
	}

	// Draws baselines as lines, checkpoints as ticks, samples as dots, the best checkpoint as a ring.
	marks() {
		const { ctx, bbox } = this.plot;
		const ratio = window.devicePixelRatio;
		const dot = (left, top, radius) => {
			ctx.beginPath();
			ctx.arc(left, top, radius * ratio, 0, 7);
		};
		ctx.save();
		ctx.beginPath();
		ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
		ctx.clip();
		ctx.font = `${11 * ratio}px system-ui`;
		ctx.textAlign = "right";
		ctx.textBaseline = "bottom";
		ctx.lineWidth = ratio;
		const labelled = []; // positions of labels, which must not overlap
		this.curves.forEach((curve, index) => {
			const x = (step) => {
				const point = curve.points.find((one) => one.step >= step) ?? curve.points.at(-1);
				return this.plot.valToPos(this.along(curve, { ...point, step }), "x", true);
			};
			const bottom = bbox.top + bbox.height - 12 * ratio * index;
			this.baselines(ctx, bbox, curve, ratio, labelled);
			ctx.strokeStyle = ctx.fillStyle = colour(`--run${curve.colour}`);
			for (const step of curve.checkpoints) ctx.fillRect(x(step) - ratio / 2, bottom - 8 * ratio, ratio, 8 * ratio);
			for (const step of curve.samples) {
				dot(x(step), bottom - 11 * ratio, 2.5);
				ctx.fill();
			}
			if (!curve.best) return;
			dot(x(curve.best[0]), this.plot.valToPos(curve.best[1], "y", true), 5);
			ctx.stroke();
		});
		ctx.restore();
	}

	baselines(ctx, bbox, curve, ratio, labelled) {
		const several = this.curves.length > 1;
		ctx.strokeStyle = ctx.fillStyle = colour(several ? `--run${curve.colour}` : "--faint");
		ctx.setLineDash([5 * ratio, 5 * ratio]);
		const right = bbox.left + bbox.width;
		for (const [name, value] of Object.entries(curve.baselines)) {
			const top = this.plot.valToPos(value, "y", true);
			ctx.beginPath();
			ctx.moveTo(bbox.left, top);
			ctx.lineTo(right, top);
			ctx.stroke();
			if (labelled.some((other) => Math.abs(other - top) < 13 * ratio)) continue;
			labelled.push(top);
			const above = top - 14 * ratio > bbox.top; // else no room over the top line
			const label = `${several ? `${curve.run.slice(0, 16)}: ` : ""}${BASELINES[name] ?? name} ${value.toFixed(2)}`;
			ctx.fillText(label, right - 6 * ratio, top + (above ? -3 : 14) * ratio);
		}
		ctx.setLineDash([]);
	}
}
