// A text as the network reads it: how surprising each character was, or what one hidden unit did.

import { at, create, setText } from "../dom.js";
import { patiently, post } from "../http.js";
import { lab } from "../lab.js";
import { equationsOf } from "../parts/equations.js";
import { chooseNetwork, listNetworks } from "../parts/networks.js";
import { PromptBox } from "../parts/prompt.js";
import { cellName, number, visible } from "../words.js";

const form = at("inside-form");
const box = new PromptBox(at("inside-prompt"), at("inside-unknown"), form.model);
const BITS = [0.7, 1.5, 2.7, 4, 6]; // from where each deeper tint begins
const VALUES = [0.08, 0.25, 0.45, 0.65, 0.85];
let shown = null; // {characters, describe(index)}
let chosen = -1;
let turn = 0;

const kind = () => form.view.value;
const percent = (logprob) => {
	const share = 100 * Math.exp(logprob);
	return share >= 99.95 ? "100 %" : share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`;
};
const depth = (value, limits) => limits.filter((limit) => value >= limit).length;

async function look() {
	const mine = ++turn;
	setText("inside-made", "reading …");
	const asked = { model: form.model.value || undefined, text: form.text.value || undefined };
	try {
		await patiently(
			() => (kind() === "surprise" ? surprise(asked, mine) : unit(asked, mine)),
			(seconds) => setText("inside-made", `The server is busy; trying again in ${seconds} s …`),
		);
	} catch (error) {
		if (mine === turn) setText("inside-made", box.refused(error) ? "" : error.message);
	}
}

async function surprise(asked, mine) {
	// the passage of its own text comes with the answer about its units
	const text = asked.text ?? (await (await post("/activations", asked)).json()).text;
	const [score] = (await (await post("/score", { ...asked, text, top: 5 })).json()).scores;
	if (mine !== turn) return;
	const characters = [...text];
	const bits = score.logprobs.map((value) => (value === null ? 0 : -value / Math.LN2));
	draw(characters, (index) => `s${depth(bits[index], BITS)}`);
	const average = score.bits_per_character === null ? "" : `, ${number(score.bits_per_character, 2)} bits a character`;
	setText("inside-made", `${score.model}${average}`);
	key([
		["s0", "expected"],
		["s2", "unlikely"],
		["s5", "surprising"],
	]);
	at("inside-followers").hidden = true;
	shown = { characters, describe: (index) => likeliest(characters[index], score, index) };
	choose(bits.indexOf(Math.max(...bits)));
}

function likeliest(character, score, index) {
	const logprob = score.logprobs[index];
	if (logprob === null) return [create("p", {}, "Nothing stands before the first character, so nothing was expected.")];
	const entries = Object.entries(score.top[index]).sort((a, b) => b[1] - a[1]);
	const items = entries.map(([one, value]) =>
		create("li", { class: one === character ? "was" : false }, create("b", {}, visible(one)), percent(value)),
	);
	return [
		create(
			"p",
			{},
			create("b", {}, `“${visible(character)}”`),
			` had ${percent(logprob)}, ${number(-logprob / Math.LN2, 1)} bits, `,
			`number ${score.ranks[index]} of its expectations. The likeliest were:`,
		),
		create("ul", { class: "likely" }, ...items),
	];
}

async function unit(asked, mine) {
	for (const name of ["layer", "unit"]) if (form[name].value !== "") asked[name] = Number(form[name].value);
	const answer = await (await post("/activations", asked)).json();
	if (mine !== turn) return;
	const characters = [...answer.text];
	draw(characters, (index) => {
		const value = answer.values[index];
		return `${value < 0 ? "c" : "s"}${depth(Math.abs(value), VALUES)}`;
	});
	form.layer.max = answer.layers - 1;
	form.unit.max = answer.hidden - 1;
	setText("inside-made", `${answer.model}, ${placeOf(answer, answer)}`);
	key([
		["c5", "−1"],
		["s0", "0"],
		["s5", "+1"],
	]);
	followers(answer);
	shown = {
		characters,
		describe: (index) => [
			create("p", {}, `After “${visible(characters[index])}” the unit gives ${number(answer.values[index], 2)}.`),
		],
	};
	choose(0);
}

// The networks of an ensemble are served as one: its units are theirs, one network after the other.
function placeOf({ model, layers, hidden }, { layer, unit }) {
	const each = hidden / (lab.run(model.split("@")[0])?.members || 1);
	const parts = each < hidden ? [`network ${Math.floor(unit / each) + 1}`] : [];
	if (layers > 1) parts.push(`layer ${layer}`);
	return [...parts, `unit ${unit % each}`].join(", ");
}

function followers(answer) {
	at("inside-followers").hidden = false;
	at("inside-none").hidden = answer.followers.length > 0;
	const items = answer.followers.map((one) => {
		const pick = () => {
			form.layer.value = one.layer;
			form.unit.value = one.unit;
			look();
		};
		const pressed = one.layer === answer.layer && one.unit === answer.unit;
		const strength = create("span", { class: "faint" }, `${placeOf(answer, one)}, r = ${number(one.correlation, 2)}`);
		return create(
			"li",
			{},
			create("button", { type: "button", "aria-pressed": String(pressed), onclick: pick }, one.feature, strength),
		);
	});
	at("inside-units").replaceChildren(...items);
}

function draw(characters, classOf) {
	const spans = characters.map((character, index) => {
		const element = create("span", { class: classOf(index) + (character === "\n" ? " end" : "") }, character);
		element.dataset.index = index;
		return element;
	});
	at("inside-text").replaceChildren(...spans);
	at("inside-shown").hidden = false;
	at("inside-empty").hidden = true;
	chosen = -1;
}

function key(entries) {
	at("inside-key").replaceChildren(
		...entries.map(([name, label]) => create("span", {}, create("i", { class: `swatch ${name}` }), ` ${label}`)),
		"Point at a character, or use the arrow keys.",
	);
}

function choose(index, scroll = false) {
	const spans = at("inside-text").children;
	if (!shown || !spans[index] || index === chosen) return;
	spans[chosen]?.classList.remove("chosen");
	chosen = index;
	spans[index].classList.add("chosen");
	if (scroll) spans[index].scrollIntoView({ block: "nearest" });
	at("inside-detail").replaceChildren(...shown.describe(index));
}

for (const event of ["pointerover", "click"]) {
	at("inside-text").addEventListener(
		event,
		({ target }) => target.dataset.index !== undefined && choose(Number(target.dataset.index)),
	);
}
at("inside-text").addEventListener("keydown", (event) => {
	const move = { ArrowLeft: -1, ArrowRight: 1, Home: -chosen, End: at("inside-text").children.length - 1 - chosen }[
		event.key
	];
	if (move === undefined) return;
	event.preventDefault();
	choose(chosen + move, true);
});
for (const radio of form.querySelectorAll("input[name=view]")) {
	radio.addEventListener("change", () => {
		at("inside-unit").hidden = kind() === "surprise";
		if (shown) look();
	});
}
form.addEventListener("submit", (event) => {
	event.preventDefault();
	look();
});

export const view = {
	// A text that was written elsewhere on the page is looked into.
	open({ text, model }) {
		if (text === undefined) return;
		box.set([...text].slice(0, Number(box.area.dataset.most)).join(""));
		if (model) chooseNetwork(form.model, model);
		look();
	},

	update(run) {
		listNetworks(form.model, run);
		at("inside-cell").hidden = !run;
		if (!run) return;
		setText("inside-cell-name", `${cellName(run.cell)}, its picture and its equations`);
		setText("inside-equations", equationsOf(run.cell));
	},

	close() {},
};
