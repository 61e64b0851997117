// The card "Write with it": a prompt and its continuation.

import { addressOf } from "../address.js";
import { at, create, onSubmit, setText, submitOnEnter } from "../dom.js";
import { beginnings } from "./ages.js";
import { drawnSeed, keep, stream, unseen, writeInto } from "./writing.js";

const form = at("turn");
const prompt = at("turn-prompt");
const hint = at("turn-hint");
let run = ""; // the name of the run that writes
let writing = null; // an AbortController while it writes

async function offer(name) {
	at("turn-beginnings").replaceChildren();
	const found = await beginnings(name).catch(() => []);
	if (name !== run) return;
	const chips = found.map((text) => {
		const choose = () => {
			prompt.value = text;
			form.requestSubmit();
		};
		const label = text.replaceAll("\n", "↵").trim();
		return create("button", { type: "button", class: "chip", onclick: choose, dir: "auto" }, label);
	});
	at("turn-beginnings").replaceChildren(...chips);
	if (!prompt.value && found.length) prompt.value = found.at(-1);
}

function request() {
	return {
		model: run,
		prompt: prompt.value,
		length: form.length.valueAsNumber || 300,
		temperature: Number(form.temperature.value),
		seed: drawnSeed(),
	};
}

async function write() {
	writing?.abort();
	const mine = new AbortController();
	writing = mine;
	const asked = request();
	const answer = at("turn-answer");
	const add = writeInto(answer, asked.prompt);
	at("turn-made").className = "under";
	setText("turn-made", "");
	setText("turn-write", "Stop");
	try {
		const done = await stream(asked, {
			signal: mine.signal,
			waiting: (words) => setText("turn-made", words),
			take: (_, piece) => add(piece),
		});
		answer.scrollTop = 0;
		finished({ ...asked, model: done.model });
	} catch (error) {
		if (mine !== writing) return;
		if (error.name === "AbortError") setText("turn-made", "Stopped.");
		else refused(error);
	} finally {
		if (mine === writing) {
			writing = null;
			setText("turn-write", "Write");
			answer.classList.remove("writing");
		}
	}
}

function finished(asked) {
	keep(asked.model).catch(() => {}); // if it fails, the link may break later
	const more = create("a", { href: addressOf("write", asked) }, "Open in Write");
	const again = create("button", { type: "button", class: "quiet", onclick: () => form.requestSubmit() }, "Again");
	at("turn-made").replaceChildren(again, more);
}

function refused(error) {
	const strange = unseen(error);
	at("turn-answer").replaceChildren();
	at("turn-made").className = "under refusal";
	setText("turn-made", strange ? `It has never seen ${strange} in its text. Leave that out.` : error.message);
}

onSubmit(form, (event) => {
	if (writing && event.submitter) writing.abort();
	else write();
});
submitOnEnter(prompt);
const showDaring = () => setText("turn-daring", form.temperature.value);
form.temperature.addEventListener("input", showDaring);
showDaring();

// Follows the run that the page shows.
export function update(one) {
	at("turn-write").disabled = !one?.newest;
	if ((one?.name ?? "") === run) return;
	if (run) prompt.value = ""; // from another text; keeps what was typed before any run was loaded
	run = one?.name ?? "";
	writing?.abort();
	at("turn-answer").replaceChildren(hint);
	setText("turn-made", "");
	if (run) offer(run);
}
