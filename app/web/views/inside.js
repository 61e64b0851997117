// A text as the network reads it: how surprising each character was, or the output of a hidden unit.

import { at, create, on, onSubmit, setText } from "../dom.js";
import { patiently, post } from "../http.js";
import { lab } from "../lab.js";
import { chooseCheckpoint, listCheckpoints } from "../parts/checkpoints.js";
import { PromptBox } from "../parts/prompt.js";
import { cellName, chance, number, parseModel, visible } from "../words.js";

const form = at("inside-form");
const box = new PromptBox(at("inside-prompt"), at("inside-unknown"), form.model);
const DEEPEST = 0.66; // strongest tint
const A_BIT = 0.12; // tint per bit of surprise
let shown = null; // describe(index) of the text on the page
let chosen = -1;
let turn = 0;

const kind = () => form.view.value;

async function look() {
	turn += 1;
	const mine = turn;
	setText("inside-made", "reading …");
	const asked = { model: form.model.value || undefined, text: form.text.value || undefined };
	try {
		await patiently(
			() => (kind() === "surprise" ? surprise(asked, mine) : unit(asked, mine)),
			(words) => setText("inside-made", words),
		);
	} catch (error) {
		if (mine === turn) setText("inside-made", box.refused(error) ? "" : error.message);
	}
}

async function surprise(asked, mine) {
	// /activations also returns the default text
	const text = asked.text ?? (await (await post("/activations", asked)).json()).text;
	const [score] = (await (await post("/score", { ...asked, text, top: 5 })).json()).scores;
	if (mine !== turn) return;
	const bits = score.logprobs.map((value) => (value === null ? 0 : -value / Math.LN2));
	draw(
		text,
		bits.map((value) => Math.min(DEEPEST, A_BIT * value)),
		(character, index) => likeliest(character, score, index),
	);
	const average = score.bits_per_character === null ? "" : `, ${number(score.bits_per_character, 2)} bits a character`;
	setText("inside-made", `${score.model}${average}`);
	key({ expected: 0, unlikely: 0.25, surprising: DEEPEST });
	at("inside-followers").hidden = true;
	choose(bits.indexOf(Math.max(...bits)));
}

function likeliest(character, score, index) {
	const logprob = score.logprobs[index];
	if (logprob === null) return ["Nothing precedes the first character, so it has no probability."];
	const entries = Object.entries(score.top[index]).sort((a, b) => b[1] - a[1]);
	const items = entries.map(([one, value]) =>
		create("li", { class: one === character ? "was" : false }, create("b", {}, visible(one)), chance(value)),
	);
	const own = `“${visible(character)}” had ${chance(logprob)}, ${number(-logprob / Math.LN2, 1)} bits, `;
	const rank = `rank ${score.ranks[index]}. The most likely were:`;
	return [create("p", {}, own + rank), create("ul", { class: "likely" }, ...items)];
}

// An ensemble is served as one network that has the units of all members, one member after the other.
const runOf = (model) => lab.run(parseModel(model)[0]) ?? lab.shown();

async function unit(asked, mine) {
	const { hidden, members } = runOf(form.model.value);
	if (members > 1 && form.unit.value !== "" && form.network.value === "") form.network.value = 1;
	if (form.layer.value !== "") asked.layer = Number(form.layer.value);
	if (form.unit.value !== "") asked.unit = Number(form.unit.value) + hidden * (Number(form.network.value || 1) - 1);
	const answer = await (await post("/activations", asked)).json();
	if (mine !== turn) return;
	draw(
		answer.text,
		answer.values.map((value) => DEEPEST * value),
		(character, index) => [`After “${visible(character)}” the unit gives ${number(answer.values[index], 2)}.`],
	);
	setText("inside-made", `${answer.model}, ${placeOf(answer, answer)}`);
	key({ "−1": -DEEPEST, 0: 0, "+1": DEEPEST });
	followers(answer);
	choose(0);
}

function placeOf({ model, layers }, { layer, unit }) {
	const { hidden, members } = runOf(model);
	const parts = members > 1 ? [`network ${Math.floor(unit / hidden) + 1}`] : [];
	if (layers > 1) parts.push(`layer ${layer}`);
	return [...parts, `unit ${unit % hidden}`].join(", ");
}

function followers(answer) {
	at("inside-followers").hidden = false;
	at("inside-none").hidden = answer.followers.length > 0;
	const { hidden } = runOf(answer.model);
	const items = answer.followers.map((one) => {
		const pick = () => {
			form.network.value = Math.floor(one.unit / hidden) + 1;
			form.layer.value = one.layer;
			form.unit.value = one.unit % hidden;
			look();
		};
		const pressed = one.layer === answer.layer && one.unit === answer.unit;
		const strength = create("span", { class: "faint" }, `${placeOf(answer, one)}, r = ${number(one.correlation, 2)}`);
		const attributes = { type: "button", "aria-pressed": String(pressed), onclick: pick };
		return create("li", {}, create("button", attributes, one.feature, strength));
	});
	at("inside-units").replaceChildren(...items);
}

// A tint is warm from 0 to 1, and cool below 0.
function tint(element, depth) {
	element.style.setProperty("--tint", Math.abs(depth).toFixed(2));
	element.classList.toggle("cool", depth < 0);
	return element;
}

function draw(text, tints, describe) {
	const characters = [...text];
	const spans = characters.map((character, index) => {
		const element = tint(create("span", { class: character === "\n" ? "end" : false }, character), tints[index]);
		element.dataset.index = index;
		return element;
	});
	at("inside-text").replaceChildren(...spans);
	at("inside-shown").hidden = false;
	at("inside-empty").hidden = true;
	shown = (index) => describe(characters[index], index);
	chosen = -1;
}

function key(depths) {
	const swatch = (depth) => tint(create("i", { class: "swatch" }), depth);
	const entries = Object.entries(depths).sort(([, one], [, other]) => one - other);
	const items = entries.map(([label, depth]) => create("span", {}, swatch(depth), ` ${label}`));
	at("inside-key").replaceChildren(...items, "Point at a character, or use the arrow keys.");
}

function choose(index, scroll = false) {
	const spans = at("inside-text").children;
	if (!spans[index] || index === chosen) return;
	spans[chosen]?.classList.remove("chosen");
	chosen = index;
	spans[index].classList.add("chosen");
	if (scroll) spans[index].scrollIntoView({ block: "nearest" });
	at("inside-detail").replaceChildren(...shown(index));
}

for (const event of ["pointerover", "click"]) {
	on("inside-text", event, ({ target }) => {
		if (target.dataset.index !== undefined) choose(Number(target.dataset.index));
	});
}
on("inside-text", "keydown", (event) => {
	const last = at("inside-text").children.length - 1;
	const move = { ArrowLeft: -1, ArrowRight: 1, Home: -chosen, End: last - chosen }[event.key];
	if (move === undefined) return;
	event.preventDefault();
	choose(chosen + move, true);
});
const showFields = () => {
	at("inside-unit").hidden = kind() === "surprise";
};
for (const radio of form.querySelectorAll("input[name=view]")) {
	radio.addEventListener("change", () => {
		showFields();
		if (shown) look();
	});
}
showFields(); // chosen before this module was loaded, or restored by the browser
onSubmit(form, () => {
	look();
});

export const view = {
	// Shows a text from another view.
	open({ text, model }) {
		if (text === undefined) return;
		box.set([...text].slice(0, Number(box.area.dataset.most)).join(""));
		if (model) chooseCheckpoint(form.model, model);
		look();
	},

	update(run) {
		listCheckpoints(form.model, run);
		at("inside-cell").hidden = !run;
		if (!run) return;
		setText("inside-cell-name", cellName(run.cell));
		for (const picture of at("inside-cell").querySelectorAll("[data-cell]"))
			picture.hidden = picture.dataset.cell !== run.cell;
		for (const [name, count, first] of [
			["network", run.members, 1],
			["layer", run.layers, 0],
			["unit", run.hidden, 0],
		]) {
			const field = form[name];
			field.max = first + count - 1;
			field.parentElement.hidden = count === 1;
			if (Number(field.value) > Number(field.max)) field.value = "";
			field.placeholder = `${first} to ${field.max}`;
		}
	},
};
