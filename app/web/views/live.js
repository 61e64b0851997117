// The first view: a passage, rewritten at each checkpoint; your prompt; your own text.

import { addressOf } from "../address.js";
import { at, on, setText } from "../dom.js";
import { onEvent } from "../events.js";
import { curveOf } from "../http.js";
import { isTraining, lab, secondsLeft } from "../lab.js";
import { isKnown, newestPassage, passageAt } from "../parts/ages.js";
import { showPassage } from "../parts/passage.js";
import { sketch } from "../parts/sketch.js";
import * as teach from "../parts/teach.js";
import * as turn from "../parts/turn.js";
import { cellName, duration, number, percent } from "../words.js";

const BETWEEN = 900; // minimum milliseconds between passages
const FRAME = 700; // milliseconds per passage in a replay

const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const slider = at("live-at");
let shown = null; // the state of the run shown: see `about`
let open = false;

// `ages`: steps with passages. `at`: the step shown (null: the newest). `answer`: the passage shown.
// `first`: that of step 0. `newest`: the step of the newest one.
const about = (name) => ({
	name,
	ages: [],
	at: null,
	answer: null,
	first: null,
	curve: null,
	curveOf: "",
	busy: false,
	replaying: 0,
	replayed: false,
	newest: -1,
});

const run = () => lab.run(shown?.name);

// Title, lead and the description of the passage, by state.
function headline(one) {
	if (!one)
		return [
			"Teach a small neural network to write",
			"It knows no words and no rules. It reads character by character, and learns. ",
			"Give it any text, and watch noise turn into words.",
		];
	const source = one.corpus === "pasted.txt" ? "your text" : one.corpus;
	if (one.step === 0 && one.state === "queued")
		return [
			`A network is about to read ${source}`,
			"It has read nothing yet. ",
			`Its first words, pure noise, appear here ${lab.lacksWorker() ? "once a worker runs" : "in a moment"}.`,
		];
	return [
		`This network ${isTraining(one) ? "is learning" : "learned"} to write from ${source}`,
		"Nobody gave it words or rules. It only guesses the next character, and improves. ",
		`The same lines, ${isTraining(one) ? "rewritten as it learns" : "as it learned"}:`,
	];
}

function where(one) {
	if (!one || !shown.answer) return "";
	const parts = [`After update ${number(shown.answer.step, 0)}${one.steps ? ` of ${number(one.steps, 0)}` : ""}`];
	if (shown.at !== null) parts.push(`one of ${shown.ages.length} checkpoints`);
	else if (isTraining(one)) parts.push(one.expected_end && `${duration(secondsLeft(one))} left`);
	else if (one.state !== "queued") parts.push(`${one.state}, ${duration(one.seconds)} of training`);
	parts.push(`${one.hidden} ${cellName(one.cell)} units${one.members > 1 ? ` × ${one.members}` : ""}`);
	return parts.filter(Boolean).join(" · ");
}

function describe() {
	const one = run();
	const words = headline(one);
	for (const [index, id] of ["live-title", "live-lead", "live-same"].entries()) setText(id, words[index]);
	setText("live-where", where(one));
	at("live-example").hidden = Boolean(one) || !lab.known;
	at("live-text").hidden = !at("live-example").hidden;
	at("live-time").classList.toggle("unknown", !one?.newest);
	if (!one?.newest) return;
	const last = shown.ages.length - 1;
	const index = shown.at === null ? last : shown.ages.indexOf(shown.at);
	slider.max = Math.max(last, 1);
	slider.value = Math.max(index, 0);
	slider.setAttribute("aria-valuetext", `update ${number(shown.ages[Math.max(index, 0)] ?? 0, 0)}`);
	const part = isTraining(one) || one.state === "paused" ? one.fraction : 1;
	at("live-done").style.width = `${Math.max(12, 100 * part)}%`;
	setText("live-play", shown.replaying ? "Stop" : shown.at === null || !isTraining(one) ? "Replay" : "Back to now");
	at("live-play").disabled = last < 1;
}

// The last held-out loss after step 0 up to a step, or the smooth loss if there is none.
function lossAt(step) {
	const points = shown.curve?.points.filter((point) => point.step > 0 && point.step <= step) ?? [];
	const last = (name) => points.findLast((point) => typeof point[name] === "number")?.[name];
	return last("validation_loss") ?? last("smooth_loss") ?? shown.curve?.baselines.uniform ?? null;
}

// The share of real words in a passage; null for a run without its text.
const shareOf = ({ words, real, prompt }) => (words ? real / words : prompt ? 0 : null);

function figures() {
	const { answer, first, curve } = shown;
	const one = run();
	if (!answer || !one) return;
	const [share, loss, began] = [shareOf(answer), lossAt(answer.step), first && shareOf(first)];
	at("live-figures").classList.remove("unknown");
	setText("live-real", share === null ? "–" : percent(share));
	setText("live-real-then", began === null || answer.step === 0 ? "" : ` (${percent(began)} at the start)`);
	setText("live-among", loss === null ? "–" : number(Math.exp(loss), 1));
	const start = curve?.baselines.uniform;
	setText("live-among-then", start && answer.step > 0 ? ` (${number(Math.exp(start), 0)} at the start)` : "");
	if (!curve) return;
	sketch(at("live-curve"), curve, isTraining(one) ? one.fraction : 1, answer.step);
	const ngram = curve.baselines["5-gram"];
	if (answer.step === shown.newest) {
		const passes = (one.step * curve.characters_per_update) / one.characters;
		teach.conclude({ run: shown.name, share, first: began, loss, ngram, passes });
	}
	const dashed = ngram ? ` Dashed: a 5-gram, ${number(ngram, 2)}.` : "";
	setText("live-loss", `${loss === null ? "" : `Loss ${number(loss, 2)}.${dashed} `}Open the curve`);
}

// Shows a passage, unless another step or run is shown by now.
function show(mine, answer) {
	if (mine !== shown || !open || (mine.at !== null && mine.at !== answer.step)) return;
	showPassage(at("live-text"), answer.prompt, answer.text, mine.answer?.text ?? null);
	at("live-text").classList.remove("waiting");
	mine.answer = answer;
	describe();
	figures();
}

async function showAge(step) {
	const mine = shown;
	try {
		show(mine, await passageAt(mine.name, step));
	} catch {
		// deleted meanwhile: the next update shows that
	}
}

// Shows the passage of each new checkpoint, one at a time.
async function showNewest() {
	const mine = shown;
	const one = run();
	if (!one?.newest || mine.busy || mine.at !== null || one.newest.step <= mine.newest) return;
	mine.busy = true;
	const began = Date.now();
	try {
		const answer = await newestPassage(mine.name);
		mine.newest = answer.step;
		if (!mine.ages.includes(answer.step)) mine.ages.push(answer.step);
		show(mine, answer);
		if (!mine.first && one.checkpoints.includes(0)) {
			mine.first = await passageAt(mine.name, 0);
			if (mine === shown) figures();
		}
	} catch {
		// the list of runs shows what is wrong
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
	const key = `${one.state}-${one.step}`;
	if (one.step > 0 && mine.curveOf !== key) {
		mine.curveOf = key;
		try {
			mine.curve = await curveOf(one.name, 150);
		} catch {
			mine.curveOf = ""; // the next update tries again
		}
	}
	if (mine !== shown || !open) return;
	figures();
	if (!mine.replayed && one.newest && mine.ages.length > 2 && !isTraining(one) && !calm.matches) replay();
	else showNewest();
}

function stop() {
	window.clearTimeout(shown?.replaying);
	if (shown) shown.replaying = 0;
}

// Shows all passages, from the first to the newest.
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
	mine.replayed = true;
	mine.replaying = -1; // not a timer's id
	next();
}

function toNow() {
	stop();
	shown.at = null;
	shown.newest = -1;
	describe();
	showNewest();
}

on("live-play", "click", () => {
	if (shown.replaying || (shown.at !== null && isTraining(run()))) toNow();
	else replay();
});
slider.addEventListener("input", () => {
	const step = shown.ages[Number(slider.value)];
	if (step === undefined || step === shown.ages.at(-1)) return toNow();
	stop();
	shown.at = step;
	describe();
	showAge(step);
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
		if (!shown || one?.name !== shown.name) {
			stop();
			shown = about(one?.name);
			at("live-text").replaceChildren();
			at("live-text").classList.toggle("waiting", Boolean(one));
			at("live-figures").classList.add("unknown");
		}
		// existing checkpoints, and deleted ones whose passage is cached
		const seen = shown.ages.filter((step) => isKnown(shown.name, step));
		shown.ages = [...new Set([...(one?.checkpoints ?? []), ...seen])].sort((a, b) => a - b);
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
