// One network over its training: its samples, or the continuation of one prompt by each checkpoint.

import { at, on, onSubmit, setText, submitOnEnter } from "../dom.js";
import { curveOf, samplesOf } from "../http.js";
import { lab } from "../lab.js";
import { beginnings, written } from "../parts/ages.js";
import { showPassage } from "../parts/passage.js";
import { sketch } from "../parts/sketch.js";
import { unseen } from "../parts/writing.js";
import { count, number } from "../words.js";

const form = at("travel-form");
const slider = at("travel-at");
const LENGTH = 400;
const FRAME = 1000; // milliseconds per step when playing

let run = null; // the run shown: {name, key, samples, curve}
let ages = []; // positions of the slider: {step, text?, kind?}
let asked = null; // the last request of the form
let shown = null; // the text shown, to compare the next one with
let playing = 0;
let turn = 0;
let index = 0; // the position shown

const isOwn = () => form.kind.value === "prompt";

async function load(one) {
	const key = `${one.state}-${one.samples}-${one.checkpoints.length}-${one.checkpoints.at(-1)}`;
	if (run?.name === one.name && run.key === key) return;
	try {
		const { name } = one;
		const [samples, curve, prompts] = await Promise.all([samplesOf(name), curveOf(name, 200), beginnings(name)]);
		if (lab.shown()?.name !== one.name) return;
		if (run?.name !== name) {
			if (run || !form.prompt.value) form.prompt.value = prompts[0] ?? ""; // keeps what was typed before the first load
			shown = null;
			ages = [];
		}
		run = { name: one.name, key, samples, curve };
		arrange(one);
	} catch {
		// the next update tries again
	}
}

// The slider keeps its step, or stays at the end.
function arrange(one) {
	const list = isOwn() || !run.samples.length ? one.checkpoints.map((step) => ({ step })) : run.samples;
	if (JSON.stringify(list) === JSON.stringify(ages)) return;
	const target = index >= ages.length - 1 ? Number.POSITIVE_INFINITY : ages[index].step;
	ages = list;
	slider.max = Math.max(1, ages.length - 1);
	show(ages.findLastIndex((age) => age.step <= target));
}

async function show(place) {
	index = Math.max(0, Math.min(ages.length - 1, place));
	const age = ages[index];
	if (!age) return;
	slider.value = index;
	turn += 1;
	const mine = turn;
	const words = `after ${count(age.step, "update")}`;
	slider.setAttribute("aria-valuetext", words);
	sketch(at("travel-curve"), run.curve, 1, age.step);
	try {
		const request = isOwn() || age.text === undefined ? ask() : null;
		const text = request ? (await written(`${run.name}@${age.step}`, request, refuse)).text : age.text;
		if (mine !== turn) return;
		refuse("");
		const best = age.kind === "best" ? ", the passage of the best network" : "";
		setText("travel-step", `${run.name} ${words}${lossAt(age)}${best}`);
		showPassage(at("travel-text"), request?.prompt ?? "", text, shown);
		shown = text;
	} catch (error) {
		if (mine !== turn) return;
		stop();
		const strange = unseen(error);
		refuse(strange ? `It has never seen ${strange} in its text. Leave that out.` : error.message);
	}
}

// Errors have their own line; the box is only for text.
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
	const [temperature, seed] = [form.temperature.valueAsNumber, form.seed.valueAsNumber];
	asked ??= { prompt: form.prompt.value, length: LENGTH, temperature, seed };
	return asked;
}

function stop() {
	window.clearTimeout(playing);
	playing = 0;
	setText("travel-play", "Play");
}

function play() {
	if (playing) return stop();
	playing = -1; // not a timer's id
	setText("travel-play", "Stop");
	const next = async (place) => {
		await show(place);
		if (!playing) return;
		if (place >= ages.length - 1) return stop();
		playing = window.setTimeout(next, FRAME, place + 1);
	};
	next(0);
}

function turnTo(place) {
	stop();
	show(place);
}

const showFields = () => {
	at("travel-own").hidden = !isOwn();
};
for (const radio of form.querySelectorAll("[name=kind]")) {
	radio.addEventListener("change", () => {
		stop();
		showFields();
		shown = null;
		if (run) arrange(lab.shown());
	});
}
showFields(); // chosen before this module was loaded, or restored by the browser
slider.addEventListener("input", () => turnTo(Number(slider.value)));
onSubmit(form, () => {
	asked = null;
	shown = null;
	show(index);
});
submitOnEnter(form.prompt);
on("travel-play", "click", play);

// A click on the curve goes to the nearest step.
on("travel-curve", "click", (event) => {
	const box = at("travel-curve").getBoundingClientRect();
	const step = ((event.clientX - box.left) / box.width) * (run.curve.points.at(-1)?.step ?? 0);
	const distances = ages.map((age) => Math.abs(age.step - step));
	turnTo(distances.indexOf(Math.min(...distances)));
});

export const view = {
	update(one) {
		at("travel-empty").hidden = Boolean(one?.newest);
		at("travel-shown").hidden = !one?.newest;
		if (!one?.newest) return;
		load(one);
	},

	close: stop,
};
