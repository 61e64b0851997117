// One network at every age: the samples of its training, or one beginning and seed written by each checkpoint.

import { at, setText } from "../dom.js";
import { getJson } from "../http.js";
import { lab } from "../lab.js";
import { beginnings, written } from "../parts/ages.js";
import { looksLikeColumns, showPassage } from "../parts/passage.js";
import { sketch } from "../parts/sketch.js";
import { unseen } from "../parts/writing.js";
import { number } from "../words.js";

const form = at("travel-form");
const slider = at("travel-at");
const LENGTH = 400;
const FRAME = 1000; // milliseconds that an age stays when they are played

let run = null; // the run that is shown: {name, key, samples, curve, prompt}
let ages = []; // of the slider: {step, text?, label}
let wanted = null; // a step that an address asks for
let asked = null; // what the form asked for last
let shown = null; // the text on the page, to compare the next one with
let playing = 0;
let turn = 0;
let index = 0; // of the age that is shown

const kind = () => form.kind.value;

async function load(one) {
	const key = `${one.state}-${one.samples}-${one.checkpoints.length}-${one.checkpoints.at(-1)}`;
	if (run?.name === one.name && run.key === key) return;
	const name = encodeURIComponent(one.name);
	try {
		const [{ samples }, curve, prompts] = await Promise.all([
			getJson(`/samples?model=${name}`),
			getJson(`/loss-curve.json?model=${name}&points=200`),
			beginnings(one.name),
		]);
		if (lab.shown()?.name !== one.name) return;
		if (run?.name !== one.name) {
			form.prompt.value = prompts[0] ?? "";
			shown = null;
			ages = [];
		}
		run = { name: one.name, key, samples, curve };
		arrange(one);
	} catch {
		// the list of runs comes again in a moment
	}
}

// The slider keeps its place, or stays at the end if it was there.
function arrange(one) {
	const own = kind() === "prompt" || !run.samples.length;
	const label = (sample) => (sample.kind === "best" ? ", the passage of the best network" : "");
	const list = own
		? one.checkpoints.map((step) => ({ step, label: "" }))
		: run.samples.map((sample) => ({ ...sample, label: label(sample) }));
	if (JSON.stringify(list) === JSON.stringify(ages)) return;
	const atEnd = index >= ages.length - 1;
	const target = wanted ?? (atEnd ? Number.POSITIVE_INFINITY : ages[index].step);
	ages = list;
	slider.max = Math.max(1, ages.at(-1)?.step ?? 1);
	wanted = null;
	show(ages.findLastIndex((age) => age.step <= target));
}

async function show(place) {
	index = Math.max(0, Math.min(ages.length - 1, place));
	const age = ages[index];
	if (!age) return;
	slider.value = age.step;
	turn += 1;
	const mine = turn;
	const words = `after ${number(age.step, 0)} updates`;
	slider.setAttribute("aria-valuetext", words);
	sketch(at("travel-curve"), run.curve, 1, age.step);
	try {
		const request = kind() === "prompt" || age.text === undefined ? ask() : null;
		const text = request ? (await written(`${run.name}@${age.step}`, request)).text : age.text;
		if (mine !== turn) return;
		refuse("");
		setText("travel-step", `${run.name} ${words}${lossAt(age)}${age.label}`);
		const view = at("travel-text");
		showPassage(view, request?.prompt ?? "", text, shown);
		view.classList.toggle("columns-matter", looksLikeColumns(text));
		shown = text;
	} catch (error) {
		if (mine !== turn) return;
		stop();
		const strange = unseen(error);
		refuse(strange ? `It has never seen ${strange} in its text. Leave that out of your beginning.` : error.message);
	}
}

function nearest(step) {
	const distances = ages.map((age) => Math.abs(age.step - step));
	return distances.indexOf(Math.min(...distances));
}

// Refusals have a line of their own: the box is the network's.
function refuse(words) {
	setText("travel-refused", words);
	at("travel-refused").hidden = !words;
}

function lossAt(age) {
	const known = run.curve.points.filter((point) => typeof point.smooth_loss === "number");
	const loss = age.smooth_loss ?? known.findLast((point) => point.step <= age.step)?.smooth_loss;
	return typeof loss === "number" ? `, smooth loss ${number(loss, 2)}` : "";
}

function ask() {
	asked ??= {
		prompt: form.prompt.value,
		length: LENGTH,
		temperature: form.temperature.valueAsNumber,
		seed: form.seed.valueAsNumber,
	};
	return asked;
}

function stop() {
	window.clearTimeout(playing);
	playing = 0;
	setText("travel-play", "Play");
}

function play() {
	if (playing) return stop();
	playing = -1; // the number of no timer
	setText("travel-play", "Stop");
	const next = async (place) => {
		await show(place);
		if (!playing) return;
		if (place >= ages.length - 1) return stop();
		playing = window.setTimeout(next, FRAME, place + 1);
	};
	next(0);
}

for (const radio of form.querySelectorAll("[name=kind]")) {
	radio.addEventListener("change", () => {
		stop();
		at("travel-own").hidden = kind() === "samples";
		shown = null;
		arrange(lab.shown());
	});
}
// The slider runs along the updates, as the curve above it, and stops where there is an age.
slider.addEventListener("input", () => {
	stop();
	show(nearest(Number(slider.value)));
});
slider.addEventListener("keydown", (event) => {
	const moves = { ArrowLeft: -1, ArrowDown: -1, PageDown: -5, ArrowRight: 1, ArrowUp: 1, PageUp: 5 };
	const move = { ...moves, Home: -ages.length, End: ages.length }[event.key];
	if (move === undefined) return;
	event.preventDefault();
	stop();
	show(index + move);
});
form.addEventListener("submit", (event) => {
	event.preventDefault();
	asked = null;
	shown = null;
	show(index);
});
form.prompt.addEventListener("keydown", (event) => {
	if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
	event.preventDefault();
	form.requestSubmit();
});
at("travel-play").addEventListener("click", play);

// A click on the curve goes to the age below it.
at("travel-curve").addEventListener("click", (event) => {
	const box = at("travel-curve").getBoundingClientRect();
	const step = ((event.clientX - box.left) / box.width) * (run.curve.points.at(-1)?.step ?? 0);
	stop();
	show(nearest(step));
});

export const view = {
	// "#travel?step=500": the age at which a sample on a curve was written.
	open({ step }) {
		if (step === undefined) return;
		wanted = Number(step);
		ages = [];
	},

	update(one) {
		at("travel-empty").hidden = Boolean(one?.newest);
		at("travel-shown").hidden = !one?.newest;
		if (!one?.newest) return;
		if (run?.name === one.name && wanted !== null) arrange(one);
		load(one);
	},

	close: stop,
};
