// The first view: one passage, written anew whenever the network has learned more; your prompt; your own text.

import { addressOf } from "../address.js";
import { at, setText } from "../dom.js";
import { onEvent } from "../events.js";
import { getJson } from "../http.js";
import { isTraining, lab } from "../lab.js";
import { beginnings, isRemembered, realWords, written, writtenNow } from "../parts/ages.js";
import { looksLikeColumns, showPassage } from "../parts/passage.js";
import { sketch } from "../parts/sketch.js";
import * as teach from "../parts/teach.js";
import * as turn from "../parts/turn.js";
import { cellName, duration, number, percent } from "../words.js";

const PASSAGE = { length: 380, temperature: 0.6, seed: 1, n: 4 }; // the first is shown, the words of all are counted
const BETWEEN = 900; // least milliseconds between two passages
const FRAME = 700; // milliseconds a passage stays when they are replayed

const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
let shown = null; // everything about the run that is shown: see `about`
let open = false;

// `ages` are the steps that can be gone back to, `at` the one that is looked at (null: always the newest),
// `newest` and `step` those of the newest text and of the one on the page.
const about = (name) => ({
	name,
	prompt: null,
	ages: [],
	at: null,
	text: null,
	curve: null,
	curveOf: "",
	shares: new Map(),
	busy: false,
	replaying: 0,
	replayed: false,
	newest: -1,
	step: null,
});

const run = () => lab.run(shown?.name);
const request = () => ({ prompt: shown.prompt, ...PASSAGE });
const modelAt = (step) => `${shown.name}@${step}`;

// The headline says what is seen, in each state.
function headline(one) {
	if (!one) {
		setText("live-title", "Teach a small neural network to write");
		setText("live-lead", "It knows no words and no rules. It reads character by character, and learns. ");
		setText("live-same", "Give it any text, and watch noise turn into words.");
		return;
	}
	const source = one.corpus === "pasted.txt" ? "your text" : one.corpus;
	if (one.step === 0 && one.state === "queued") {
		setText("live-title", `A network is about to read ${source}`);
		setText("live-lead", "It has read nothing yet. ");
		const soon = lab.lacksWorker() ? "once a worker runs" : "in a moment";
		setText("live-same", `Its first words, pure noise, appear here ${soon}.`);
		return;
	}
	const verb = isTraining(one) ? "is learning" : "learned";
	setText("live-title", `This network ${verb} to write from ${source}`);
	setText("live-lead", "Nobody gave it words or rules. It only guesses the next character, and improves. ");
	setText("live-same", isTraining(one) ? "The same lines, rewritten as it learns:" : "The same lines, as it learned:");
}

function where(one) {
	if (!one || shown.step === null) return "";
	const of = one.steps ? ` of ${number(one.steps, 0)}` : "";
	const parts = [`After update ${number(shown.step, 0)}${of}`];
	if (isTraining(one) && one.expected_end)
		parts.push(`${duration(Math.max(0, one.expected_end - Date.now() / 1000))} left`);
	else if (!isTraining(one) && one.state !== "queued") parts.push(`${one.state}, ${duration(one.seconds)} of training`);
	parts.push(`${one.hidden} ${cellName(one.cell)} units${one.members > 1 ? ` × ${one.members}` : ""}`);
	return parts.join(" · ");
}

function describe() {
	const one = run();
	headline(one);
	setText("live-where", where(one));
	at("live-example").hidden = Boolean(one) || !lab.known;
	at("live-text").hidden = !at("live-example").hidden;
	at("live-time").classList.toggle("unknown", !one?.newest);
	if (!one?.newest) return;
	const slider = at("live-at");
	const last = shown.ages.length - 1;
	slider.max = Math.max(last, 1);
	const index = shown.at === null ? last : shown.ages.indexOf(shown.at);
	slider.value = Math.max(index, 0);
	slider.setAttribute("aria-valuetext", `update ${number(shown.ages[Math.max(index, 0)] ?? 0, 0)}`);
	const part = isTraining(one) || one.state === "paused" ? one.fraction : 1;
	at("live-done").style.width = `${Math.max(12, 100 * part)}%`;
	setText("live-play", shown.replaying ? "Stop" : shown.at === null || !isTraining(one) ? "Replay" : "Back to now");
	at("live-play").disabled = shown.ages.length < 2;
}

// Checkpoints that are there, and those that are gone but were seen.
function listAges(one) {
	const seen = shown.ages.filter((step) => isRemembered(modelAt(step), request()));
	shown.ages = [...new Set([...one.checkpoints, ...seen])].sort((a, b) => a - b);
}

// Held-out loss, or the smoothed one where nothing is held out: as last measured before an update.
function lossAt(step) {
	const points = shown.curve?.points ?? [];
	const held = points.some((point) => typeof point.validation_loss === "number");
	const name = held ? "validation_loss" : "smooth_loss";
	const known = points.filter((point) => typeof point[name] === "number");
	const found = known.findLast((point) => point.step <= step);
	if (step === 0 || !found) return shown.curve?.baselines.uniform ?? found?.[name] ?? null;
	return found[name];
}

function figures(step) {
	const mine = shown;
	const share = mine.shares.get(step);
	const loss = lossAt(step);
	at("live-figures").classList.toggle("unknown", share === undefined && loss === null);
	if (share !== undefined) setText("live-real", share === null ? "0%" : percent(share));
	const first = mine.shares.get(0);
	setText("live-real-then", first === undefined || step === 0 ? "" : ` (${percent(first ?? 0)} at the start)`);
	if (loss !== null) setText("live-among", number(Math.exp(loss), 1));
	const start = mine.curve?.baselines.uniform;
	setText("live-among-then", start && step > 0 ? ` (${number(Math.exp(start), 0)} at the start)` : "");
	const one = run();
	if (!mine.curve || !one) return;
	sketch(at("live-curve"), mine.curve, isTraining(one) ? one.fraction : 1, step);
	const ngram = mine.curve.baselines["5-gram"];
	if (step === mine.newest) {
		const passes = (one.step * mine.curve.characters_per_update) / one.characters;
		teach.conclude({ run: mine.name, share, first, loss, ngram, passes });
	}
	const dashed = ngram ? ` Dashed: a 5-gram, ${number(ngram, 2)}.` : "";
	setText("live-loss", loss === null ? "Open the curve" : `Loss ${number(loss, 2)}.${dashed} Open the curve`);
}

// The share of real words in what it wrote at an age, counted once.
async function count(mine, step, answer) {
	if (mine.shares.has(step)) return;
	mine.shares.set(
		step,
		await realWords(
			mine.name,
			answer.choices.map((choice) => choice.text),
		),
	);
}

// Shows what was written, unless another age or run is looked at by now.
async function show(mine, answer) {
	await count(mine, answer.step, answer);
	if (mine !== shown || !open || (mine.at !== null && mine.at !== answer.step)) return;
	const view = at("live-text");
	showPassage(view, mine.prompt, answer.text, mine.text);
	view.classList.toggle("columns-matter", looksLikeColumns(answer.text));
	view.classList.remove("waiting");
	mine.text = answer.text;
	mine.step = answer.step;
	describe();
	figures(answer.step);
}

async function showAge(step) {
	const mine = shown;
	try {
		await show(mine, await written(modelAt(step), request()));
	} catch {
		// deleted meanwhile: the list of runs comes again
	}
}

// The newest passage, as often as there is a new checkpoint, one at a time.
async function showNewest() {
	const mine = shown;
	const one = run();
	if (!one?.newest || mine.busy || mine.at !== null || mine.prompt === null || one.newest.step <= mine.newest) return;
	mine.busy = true;
	const began = Date.now();
	try {
		const answer = await writtenNow(mine.name, request());
		mine.newest = answer.step;
		if (!mine.ages.includes(answer.step)) mine.ages.push(answer.step);
		await show(mine, answer);
		if (!mine.shares.has(0) && one.checkpoints.includes(0)) {
			await count(mine, 0, await written(modelAt(0), request()));
			if (mine === shown) figures(mine.step);
		}
	} catch {
		// the list of runs says what is wrong, and comes again
	}
	const again = () => {
		mine.busy = false;
		if (mine === shown && open) showNewest();
	};
	window.setTimeout(again, Math.max(0, began + BETWEEN - Date.now()));
}

async function load() {
	const mine = shown;
	const one = run();
	if (!one) return;
	try {
		if (mine.prompt === null) mine.prompt = (await beginnings(one.name))[0] ?? "";
		const key = `${one.state}-${one.step}`;
		if (one.step > 0 && mine.curveOf !== key) {
			mine.curveOf = key;
			mine.curve = await getJson(`/loss-curve.json?model=${encodeURIComponent(one.name)}&points=150`);
		}
	} catch {
		mine.curveOf = "";
		return; // the list of runs comes again
	}
	if (mine !== shown || !open) return;
	if (mine.step !== null) figures(mine.step);
	if (!mine.replayed && one.newest && mine.ages.length > 2 && !isTraining(one) && !calm.matches) {
		mine.replayed = true;
		replay();
	} else showNewest();
}

function stop() {
	window.clearTimeout(shown?.replaying);
	if (shown) shown.replaying = 0;
}

// Through all ages, from noise to now.
function replay() {
	const mine = shown;
	let index = 0;
	const next = async () => {
		mine.at = mine.ages[index];
		await showAge(mine.at);
		if (mine !== shown || !open || !mine.replaying) return;
		index += 1;
		if (index < mine.ages.length) mine.replaying = window.setTimeout(next, FRAME);
		else toNow();
	};
	mine.replaying = -1; // the number of no timer
	next();
}

function toNow() {
	stop();
	shown.at = null;
	shown.newest = -1;
	describe();
	showNewest();
}

at("live-play").addEventListener("click", () => {
	if (shown.replaying || (shown.at !== null && isTraining(run()))) toNow();
	else replay();
});
at("live-at").addEventListener("input", () => {
	stop();
	const index = Number(at("live-at").value);
	shown.at = index >= shown.ages.length - 1 ? null : shown.ages[index];
	if (shown.at === null) return toNow();
	describe();
	showAge(shown.at);
});
onEvent((name, event, data) => {
	const one = lab.run(name);
	if (event === "checkpoint" && one) one.newest = { ...one.newest, step: data.step };
});

export const view = {
	open() {
		open = true;
	},

	update(one) {
		if (one?.name !== shown?.name || !shown) {
			stop();
			shown = about(one?.name);
			at("live-text").replaceChildren();
			at("live-text").classList.toggle("waiting", Boolean(one));
			at("live-figures").classList.toggle("unknown", !one?.newest);
		}
		if (one) listAges(one);
		at("live-sketch").href = addressOf("curves");
		describe();
		turn.update(one);
		teach.update(one);
		load();
	},

	close() {
		open = false;
		stop();
		if (shown) shown.at = null;
	},
};
