// A chart of several runs' losses, drawn by uPlot: hover, zoom by mouse, button or key, log or linear axes.

import { darkScheme } from "../dom.js";
import { number } from "../words.js";

export class LossChart {
	// `read(text)` is told the values that the arrow keys reach; `legend(rows)` each line's value under the
	// cursor, or its newest one: {label, colour, value, at}.
	constructor(element, read, legend) {
		this.element = element;
		this.read = read;
		this.legend = legend;
		this.curves = [];
		this.options = { x: "step", logX: false, logY: false };
		this.zoomed = null;
		this.plot = null;
		this.shape = "";
		new ResizeObserver(() => this.resize()).observe(element);
		element.addEventListener("keydown", (event) => this.key(event));
	}

	colour(name) {
		return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	}

	// Where an update lies along the axis.
	along(curve, step) {
		if (this.options.x === "characters") return step * curve.characters_per_update;
		if (this.options.x === "step") return step;
		const points = curve.points;
		let low = 0;
		let high = points.length - 1;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (points[middle].step < step) low = middle + 1;
			else high = middle;
		}
		return points[low]?.seconds ?? 0;
	}

	tables() {
		const usable = (x) => !this.options.logX || x > 0;
		const table = (curve, name) => {
			const columns = [[], []];
			for (const point of curve.points) {
				const x = this.along(curve, point.step);
				if (point[name] === null || point[name] === undefined || !usable(x) || x <= columns[0].at(-1)) continue;
				columns[0].push(x);
				columns[1].push(point[name]);
			}
			return columns;
		};
		return this.curves.flatMap((curve) => LossChart.linesOf(curve).map((line) => table(curve, line.name)));
	}

	series() {
		const several = this.curves.length > 1;
		return this.curves.flatMap((curve, index) => {
			const colour = this.colour(`--run${curve.colour ?? index % 6}`);
			return LossChart.linesOf(curve).map((line) => ({
				label: several ? `${curve.run} ${line.label}` : line.label,
				colour,
				stroke: line.faint ? this.withAlpha(colour, 0.35) : colour,
				width: line.width,
				dash: line.dash,
				points: { show: Boolean(line.points), size: 6, fill: colour },
				value: (_, value) => (value === null || value === undefined ? "–" : value.toFixed(3)),
			}));
		});
	}

	withAlpha(hex, alpha) {
		const rgb = Number.parseInt(hex.slice(1), 16);
		return `rgba(${rgb >> 16}, ${(rgb >> 8) & 255}, ${rgb & 255}, ${alpha})`;
	}

	// Draws anew only if more than the points has changed.
	show(curves, options) {
		this.curves = curves;
		this.options = options;
		const shape = JSON.stringify([
			curves.map((curve) => [curve.run, curve.colour, LossChart.linesOf(curve).length]),
			options,
			darkScheme.matches,
		]);
		const data = uPlot.join(this.tables());
		if (this.plot && shape === this.shape) {
			this.plot.setData(data, false);
			this.rescale();
			this.legend(this.rows(this.plot.cursor.idx));
			return;
		}
		this.shape = shape;
		this.zoomed = null;
		if (this.plot) this.plot.destroy();
		this.lines = this.series();
		this.plot = new uPlot(this.settings(), data, this.element);
		this.legend(this.rows(null));
	}

	rows(cursor) {
		const [along, ...columns] = this.plot.data;
		return this.lines.map(({ label, colour }, index) => {
			const last = columns[index].findLastIndex((value) => value !== null && value !== undefined);
			const place = cursor === null || cursor === undefined ? last : this.nearest(columns[index], cursor);
			return { label, colour, value: columns[index][place] ?? null, at: along[place] ?? null };
		});
	}

	settings() {
		const faint = this.colour("--faint");
		const axis = {
			stroke: faint,
			grid: { stroke: this.colour("--line"), width: 1 },
			ticks: { show: false },
			font: "12px system-ui",
		};
		const { x, logX, logY } = this.options;
		return {
			...this.size(),
			scales: {
				x: {
					time: false,
					distr: logX ? 3 : 1,
					range: (_, low, high) => this.zoomed ?? (logX ? [low, high] : [Math.min(low, 0), Math.max(high, 1)]),
				},
				y: { distr: logY ? 3 : 1, range: (_, low, high) => this.rangeOf(low, high) },
			},
			series: [
				{
					label: { step: "updates", characters: "characters", seconds: "seconds" }[x],
					value: (_, value) => (value === null ? "–" : number(value, 0)),
				},
				...this.lines,
			],
			axes: [
				{
					...axis,
					size: 34,
					values: (_, ticks) => ticks.map(LossChart.short),
					...(logX ? { splits: (u) => LossChart.ticks(u.scales.x), filter: (_, ticks) => ticks } : {}),
				},
				{
					...axis,
					size: 44,
					values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : String(+tick.toPrecision(3)))),
					...(logY ? { splits: (u) => LossChart.ticks(u.scales.y), filter: (_, ticks) => ticks } : {}),
				},
			],
			cursor: {
				drag: { x: true, y: false, setScale: false },
				points: { size: 7 },
				dataIdx: (u, series, at) => this.nearest(u.data[series], at),
			},
			legend: { show: false },
			hooks: { draw: [() => this.marks()], setSelect: [(u) => this.select(u)], setCursor: [(u) => this.hover(u)] },
		};
	}

	rangeOf(low, high) {
		if (low === null || high === null) return [0.5, 5];
		const baselines = this.curves.flatMap((curve) => Object.values(curve.baselines));
		const bottom = this.zoomed ? low : Math.min(low, ...baselines);
		const top = this.zoomed ? high : Math.max(high, ...baselines);
		const pad = 0.06 * (top - bottom || 1);
		return this.options.logY ? [bottom * 0.94, top * 1.1] : [Math.max(0, bottom - pad), top + pad];
	}

	size() {
		const width = Math.max(240, this.element.clientWidth);
		return { width, height: width < 600 ? 250 : 340 };
	}

	resize() {
		const size = this.size();
		if (this.plot && (this.plot.width !== size.width || this.plot.height !== size.height)) this.plot.setSize(size);
	}

	rescale() {
		const x = this.plot.data[0];
		if (x.length)
			this.plot.setScale(
				"x",
				this.zoomed ? { min: this.zoomed[0], max: this.zoomed[1] } : { min: x[0], max: x.at(-1) },
			);
	}

	select(plot) {
		if (plot.select.width < 8) return;
		const left = plot.posToVal(plot.select.left, "x");
		const right = plot.posToVal(plot.select.left + plot.select.width, "x");
		plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
		this.zoom([left, right]);
	}

	zoom(range) {
		this.zoomed = range;
		this.rescale();
	}

	// Nearer or further about the cursor, or about the newest point.
	zoomBy(factor) {
		if (!this.plot?.data[0].length) return;
		const { min, max } = this.plot.scales.x;
		const x = this.plot.data[0];
		const [first, last] = [Math.min(x[0], this.options.logX ? x[0] : 0), x.at(-1)];
		const about = this.plot.cursor.idx === null || this.plot.cursor.idx === undefined ? max : x[this.plot.cursor.idx];
		const range = [Math.max(first, about - (about - min) * factor), Math.min(last, about + (max - about) * factor)];
		this.zoom(range[0] <= first && range[1] >= last ? null : range);
	}

	key(event) {
		const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
		if (event.key === "+" || event.key === "=") this.zoomBy(0.5);
		else if (event.key === "-") this.zoomBy(2);
		else if (event.key === "0") this.zoom(null);
		else if (move && this.plot) {
			const x = this.plot.data[0];
			const at = Math.max(0, Math.min(x.length - 1, (this.plot.cursor.idx ?? x.length) + move));
			this.plot.setCursor({ left: this.plot.valToPos(x[at], "x"), top: 20 });
			this.read(this.values(at));
		} else return;
		event.preventDefault();
	}

	hover(plot) {
		if (plot.cursor.idx === null || plot.cursor.idx === undefined) this.read("");
		if (this.plot) this.legend(this.rows(plot.cursor.idx));
	}

	// Runs are recorded at different places: the closest point of a line, where the line passes.
	nearest(values, at) {
		const known = (index) => values[index] !== undefined && values[index] !== null;
		if (at === null || at === undefined || known(at)) return at;
		let left = at - 1;
		let right = at + 1;
		while (left >= 0 && !known(left)) left -= 1;
		while (right < values.length && !known(right)) right += 1;
		if (left < 0 || right >= values.length) return at;
		return at - left <= right - at ? left : right;
	}

	values(at) {
		const series = this.plot.series.slice(1);
		const known = series
			.map((one, index) => [one.label, this.plot.data[index + 1][this.nearest(this.plot.data[index + 1], at)]])
			.filter(([, value]) => value !== null && value !== undefined);
		const values = known.map(([label, value]) => `${label} ${value.toFixed(3)}`);
		return `${number(this.plot.data[0][at], 0)} ${this.plot.series[0].label}: ${values.join(", ")}`;
	}

	// Baselines across, checkpoints as ticks below, samples as dots there, the best as a ring.
	marks() {
		const { ctx, bbox } = this.plot;
		const ratio = window.devicePixelRatio;
		const x = (value) => this.plot.valToPos(value, "x", true);
		const y = (value) => this.plot.valToPos(value, "y", true);
		ctx.save();
		ctx.beginPath();
		ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
		ctx.clip();
		ctx.font = `${11 * ratio}px system-ui`;
		ctx.lineWidth = ratio;
		const labelled = []; // where a label is, so that none covers another
		this.curves.forEach((curve, index) => {
			const colour = this.colour(`--run${curve.colour ?? index % 6}`);
			const inside = (step) => !this.options.logX || this.along(curve, step) > 0;
			this.baselines(ctx, bbox, curve, y, ratio, labelled);
			ctx.strokeStyle = ctx.fillStyle = colour;
			const bottom = bbox.top + bbox.height - 12 * ratio * index;
			for (const step of curve.checkpoints.filter(inside)) {
				const left = x(this.along(curve, step));
				ctx.fillRect(left - ratio / 2, bottom - 8 * ratio, ratio, 8 * ratio);
			}
			for (const step of curve.samples.filter(inside)) {
				ctx.beginPath();
				ctx.arc(x(this.along(curve, step)), bottom - 11 * ratio, 2.5 * ratio, 0, 7);
				ctx.fill();
			}
			if (curve.best && inside(curve.best[0])) {
				ctx.lineWidth = 2 * ratio;
				ctx.beginPath();
				ctx.arc(x(this.along(curve, curve.best[0])), y(curve.best[1]), 5 * ratio, 0, 7);
				ctx.stroke();
				ctx.lineWidth = ratio;
			}
		});
		ctx.restore();
	}

	baselines(ctx, bbox, curve, y, ratio, labelled) {
		const several = this.curves.length > 1;
		ctx.strokeStyle = ctx.fillStyle = this.colour(several ? `--run${curve.colour}` : "--faint");
		ctx.setLineDash([5 * ratio, 5 * ratio]);
		ctx.textAlign = "right";
		ctx.textBaseline = "bottom";
		for (const [name, value] of Object.entries(curve.baselines)) {
			const top = y(value);
			ctx.beginPath();
			ctx.moveTo(bbox.left, top);
			ctx.lineTo(bbox.left + bbox.width, top);
			ctx.stroke();
			const label = { uniform: "guessing", unigram: "single characters" }[name] ?? name;
			if (labelled.some((other) => Math.abs(other - top) < 13 * ratio)) continue;
			labelled.push(top);
			const above = top - 14 * ratio > bbox.top; // a low chart has no room over its topmost line
			ctx.fillText(
				`${several ? `${curve.run}: ` : ""}${label} ${value.toFixed(2)}`,
				bbox.left + bbox.width - 6 * ratio,
				top + (above ? -3 : 12) * ratio,
			);
		}
		ctx.setLineDash([]);
	}

	static LINES = [
		{ name: "loss", label: "loss", width: 1, faint: true },
		{ name: "smooth_loss", label: "smooth", width: 2 },
		{ name: "validation_loss", label: "held-out", width: 2, dash: [6, 4], points: true },
	];

	static linesOf(curve) {
		return LossChart.LINES.filter((line) => curve.points.some((point) => typeof point[line.name] === "number"));
	}

	static short(value) {
		if (value === null) return "";
		if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
		return value >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : String(+value.toPrecision(4));
	}

	static ticks({ min, max }) {
		const found = [];
		const steps = Math.log10(max / min) > 1.5 ? [1, 3] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
		for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power += 1) {
			for (const step of steps) {
				const value = step * 10 ** power;
				if (value >= min && value <= max) found.push(value);
			}
		}
		return found;
	}
}
