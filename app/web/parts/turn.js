// Your turn: a beginning, one button, and what the network makes of it.

import { addressOf } from "../address.js";
import { at, create, setText } from "../dom.js";
import { beginnings } from "./ages.js";
import { drawnSeed, keep, stream, unseen } from "./writing.js";

const form = at("turn");
const prompt = at("turn-prompt");
const hint = at("turn-hint");
let run = ""; // the name of the run that writes
let writing = null; // an AbortController while it writes

const label = (text) => text.replaceAll("\n", "↵").trim();

async function offer(name) {
	at("turn-beginnings").replaceChildren();
	const found = await beginnings(name).catch(() => []);
	if (name !== run) return;
	at("turn-beginnings").replaceChildren(
		...found.map((text) => {
			const choose = () => {
				prompt.value = text;
				grow();
				form.requestSubmit();
			};
			return create("button", { type: "button", class: "chip", onclick: choose, dir: "auto" }, label(text));
		}),
	);
	if (!prompt.value && found.length) prompt.value = found.at(-1);
	grow();
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
	const text = document.createTextNode("");
	const answer = at("turn-answer");
	answer.replaceChildren(create("span", { class: "prompt" }, asked.prompt), text);
	answer.classList.add("writing");
	setText("turn-made", "");
	setText("turn-write", "Stop");
	try {
		const done = await stream(asked, {
			signal: mine.signal,
			waiting: (seconds) => setText("turn-made", `The server is busy; trying again in ${seconds} s …`),
			take: (_, piece) => {
				text.appendData(piece);
				answer.scrollTop = answer.scrollHeight;
			},
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
	keep(asked.model).catch(() => {}); // then the link may break later
	const more = create("a", { href: addressOf("write", asked) }, "Open in Write");
	const again = create("button", { type: "button", class: "quiet", onclick: () => form.requestSubmit() }, "Again");
	at("turn-made").replaceChildren(again, more);
}

function refused(error) {
	const strange = unseen(error);
	const words = strange
		? `It has never seen ${strange} in its text. Leave that out.`
		: { 503: "It has not written anything yet: its first words come in a moment." }[error.status];
	at("turn-answer").replaceChildren();
	setText("turn-made", words ?? error.message);
}

// As high as its text, up to a limit in the style sheet.
function grow() {
	prompt.style.height = "auto";
	prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

form.addEventListener("submit", (event) => {
	event.preventDefault();
	if (writing && event.submitter) writing.abort();
	else write();
});
prompt.addEventListener("input", grow);
prompt.addEventListener("keydown", (event) => {
	if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
	event.preventDefault();
	form.requestSubmit();
});
at("turn-more").addEventListener("click", () => {
	const settings = at("turn-settings");
	settings.hidden = !settings.hidden;
	at("turn-more").setAttribute("aria-expanded", String(!settings.hidden));
});
form.temperature.addEventListener("input", () => setText("turn-daring", form.temperature.value));

// Follows the run that the page is about.
export function update(one) {
	at("turn-write").disabled = !one?.newest;
	at("turn-all").href = addressOf("write", { prompt: prompt.value });
	if ((one?.name ?? "") === run) return;
	if (run) prompt.value = ""; // of another text; what was typed before any run was known stays
	run = one?.name ?? "";
	writing?.abort();
	at("turn-answer").replaceChildren(hint);
	setText("turn-made", "");
	if (run) offer(run);
}
