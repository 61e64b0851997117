// One network at every age: the samples of its training, or one prompt and seed written by each checkpoint.

import { at, create, setText } from "../dom.js";
import { getJson, patiently, post } from "../http.js";
import { lab } from "../lab.js";
import { number } from "../words.js";

const form = at("travel-form");
const slider = at("travel-at");
const LENGTH = 400;
const texts = new Map(); // what was asked -> its text
let ages = []; // of the slider: {step, text?, loss?, label}
let samples = null;
let samplesOf = "";
let asking = null;
let playing = 0;

const run = () => lab.shown();
const kind = () => document.querySelector("input[name=travel-kind]:checked").value;

async function update(one) {
	at("travel-empty").hidden = Boolean(one?.newest);
	at("travel-shown").hidden = !one?.newest;
	if (!one?.newest) return;
	const key = `${one.name}-${one.samples}`;
	if (key !== samplesOf) {
		try {
			samples = (await getJson(`/samples?model=${encodeURIComponent(one.name)}`)).samples;
			samplesOf = key;
		} catch {
			return; // the runs are asked for again in a moment
		}
	}
	arrange();
}

// The slider keeps its place, or stays at the end if it was there.
function arrange() {
	const one = run();
	if (!one || !samples) return;
	const wanted =
		kind() === "samples" && samples.length
			? samples.map((sample) => ({ ...sample, label: sample.kind === "best" ? ", the best network's passage" : "" }))
			: one.checkpoints.map((step) => ({ step, label: "" }));
	if (JSON.stringify(wanted) === JSON.stringify(ages)) return;
	const atEnd = Number(slider.value) >= ages.length - 1;
	ages = wanted;
	slider.max = Math.max(0, ages.length - 1);
	if (atEnd) slider.value = slider.max;
	show();
}

async function show() {
	const age = ages[Number(slider.value)];
	if (!age) return;
	slider.setAttribute("aria-valuetext", `${number(age.step, 0)} updates`);
	const loss =
		age.smooth_loss === null || age.smooth_loss === undefined ? "" : `, smooth loss ${number(age.smooth_loss, 2)}`;
	setText("travel-step", `${run().name} after ${number(age.step, 0)} updates${loss}${age.label}`);
	if (age.text !== undefined) {
		setText("travel-text", age.text);
		return;
	}
	await ask(age.step);
}

async function ask(step) {
	const asked = {
		model: `${run().name}@${step}`,
		prompt: form.prompt.value,
		seed: Number(form.seed.value),
		temperature: Number(form.temperature.value),
		length: LENGTH,
	};
	const key = JSON.stringify(asked);
	asking?.abort();
	const mine = new AbortController();
	asking = mine;
	const view = at("travel-text");
	view.classList.add("fading");
	try {
		if (!texts.has(key)) {
			const send = () => post("/generate", asked, { signal: mine.signal });
			const response = await patiently(send, () => setText("travel-step", "The server is busy …"));
			texts.set(key, (await response.json()).text);
		}
		if (mine !== asking) return;
		view.replaceChildren(create("span", { class: "prompt" }, asked.prompt), texts.get(key));
	} catch (error) {
		if (mine === asking && error.name !== "AbortError") view.textContent = error.message;
	} finally {
		if (mine === asking) view.classList.remove("fading");
	}
}

function stop() {
	window.clearTimeout(playing);
	playing = 0;
	const button = at("travel-play");
	button.textContent = "▶";
	button.setAttribute("aria-label", "Play from the beginning");
}

function play() {
	if (playing) return stop();
	slider.value = 0;
	at("travel-play").textContent = "■";
	at("travel-play").setAttribute("aria-label", "Stop");
	const next = async () => {
		await show();
		if (!playing) return;
		if (Number(slider.value) >= ages.length - 1) return stop();
		playing = window.setTimeout(() => {
			slider.value = Number(slider.value) + 1;
			next();
		}, 1200);
	};
	playing = 1;
	next();
}

for (const radio of document.querySelectorAll("input[name=travel-kind]")) {
	radio.addEventListener("change", () => {
		form.hidden = kind() === "samples";
		ages = [];
		arrange();
	});
}
slider.addEventListener("input", () => {
	stop();
	show();
});
form.addEventListener("change", () => form.checkValidity() && show());
form.addEventListener("submit", (event) => {
	event.preventDefault();
	show();
});
at("travel-play").addEventListener("click", play);

export const view = {
	open() {},
	update,
	close: stop,
};
