// Writes with a network: streaming, several variants at once, and the means to get exactly this text again.

import { go } from "../address.js";
import { at, create, setText } from "../dom.js";
import { credentials } from "../http.js";
import { chooseNetwork, listNetworks } from "../parts/networks.js";
import { PromptBox } from "../parts/prompt.js";
import { drawnSeed, stream } from "../parts/writing.js";

const form = at("write-form");
const box = new PromptBox(at("write-prompt"), at("write-unknown"), form.model);
let writing = null; // an AbortController while a text is written
let made = null; // the request that gives what is shown again

const NUMBERS = ["length", "temperature", "top_k", "top_p", "seed", "n"];
const NEUTRAL = { top_k: 0, top_p: 1, n: 1 };

const unescapeBreaks = (text) => text.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
const escapeBreaks = (text) => text.replaceAll("\n", "\\n").replaceAll("\t", "\\t");

function request() {
	const asked = { prompt: form.prompt.value };
	if (form.model.value) asked.model = form.model.value;
	for (const name of NUMBERS) {
		const value = form[name].value;
		if (value !== "" && Number(value) !== NEUTRAL[name]) asked[name] = Number(value);
	}
	asked.seed ??= drawnSeed();
	if (form.stop.value) asked.stop = unescapeBreaks(form.stop.value);
	return asked;
}

function columns(asked) {
	const texts = Array.from({ length: asked.n ?? 1 }, (_, index) => {
		const prompt = create("span", { class: "prompt" }, asked.prompt);
		const written = document.createTextNode("");
		const text = create(
			"pre",
			{ class: "text writing", tabindex: "0", "aria-label": `Text ${index + 1}` },
			prompt,
			written,
		);
		return { element: text, written };
	});
	at("write-texts").replaceChildren(...texts.map((text) => text.element));
	return texts;
}

async function write(asked) {
	if (writing) writing.abort();
	const mine = new AbortController();
	writing = mine;
	const texts = columns(asked);
	begin();
	try {
		const answer = await stream(asked, {
			signal: mine.signal,
			waiting: (seconds) => setText("write-made", `The server is busy; trying again in ${seconds} s …`),
			take: (choice, text, ended) => append(texts[choice], text, ended),
		});
		made = { ...asked, model: answer.model, seed: answer.seed };
		const stopped = answer.finish_reason === "stop" ? ", ended by the stop string" : "";
		setText("write-made", `${answer.model}, seed ${answer.seed}, ${answer.length} characters${stopped}`);
	} catch (error) {
		if (mine === writing) failed(error, asked, texts);
	} finally {
		for (const text of texts) text.element.classList.remove("writing");
		if (mine === writing) end();
	}
}

function append({ element, written }, text, ended) {
	const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
	written.appendData(text);
	if (follows) element.scrollTop = element.scrollHeight;
	if (ended) element.classList.remove("writing");
}

function failed(error, asked, texts) {
	const count = Math.max(...texts.map((text) => text.written.length));
	made = null;
	if (error.name === "AbortError") setText("write-made", `stopped after ${count} characters; seed ${asked.seed}`);
	else if (box.refused(error)) {
		setText("write-made", "");
		at("write-texts").replaceChildren();
		at("write-empty").hidden = false;
		at("write-prompt").focus();
	} else if (error.status === 404)
		setText("write-made", `${error.message} It may have been deleted meanwhile: choose another network.`);
	else
		setText(
			"write-made",
			count
				? `${error.message}, after ${count} characters. Seed ${asked.seed} gives the same text again.`
				: error.message,
		);
}

function begin() {
	at("write-empty").hidden = true;
	at("write-again").hidden = true;
	at("write-stop").hidden = false;
	at("write-go").disabled = true;
	setText("write-copied", "");
	setText("write-made", "reading the prompt …");
}

function end() {
	writing = null;
	at("write-stop").hidden = true;
	at("write-go").disabled = false;
	at("write-again").hidden = made === null;
	if (made) setText("write-code", [again.link(), again.curl(), again.python()].join("\n\n"));
}

// Three ways to the very same text.
const again = {
	link: () => `${location.origin}/#write?${new URLSearchParams(made)}`,
	curl: () => {
		const key = credentials().Authorization ? ' -H "Authorization: Bearer $CHARLOOM_KEY"' : "";
		const body = JSON.stringify(made).replaceAll("'", "'\\''");
		return `curl -s ${location.origin}/generate${key} -H 'Content-Type: application/json' \\\n` + `  -d '${body}'`;
	},
	python: () => {
		const fields = Object.entries(made).map(
			([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},`,
		);
		return [
			"import httpx",
			"",
			"request = {",
			...fields,
			"}",
			`answer = httpx.post("${location.origin}/generate", json=request, timeout=60).json()`,
			'print(answer["text"])',
		].join("\n");
	},
};

async function copy(kind) {
	try {
		await navigator.clipboard.writeText(again[kind]());
		setText("write-copied", "Copied.");
	} catch {
		// without a secure context there is no clipboard: the text is shown, and chosen
		setText("write-copied", "This browser does not let the page copy: here it is, to be copied by hand.");
		setText("write-code", again[kind]());
		at("write-code").closest("details").open = true;
		getSelection().selectAllChildren(at("write-code"));
	}
}

// A link that says what to write: fills in the form and writes.
function fill(asked) {
	box.set(asked.prompt ?? "");
	for (const name of NUMBERS) form[name].value = asked[name] ?? NEUTRAL[name] ?? "";
	if (!form.length.value) form.length.value = 400;
	if (form.top_k.value === "0") form.top_k.value = "";
	form.stop.value = escapeBreaks(asked.stop ?? "");
	if (asked.model) chooseNetwork(form.model, asked.model);
	values();
	if (asked.seed !== undefined) write(request());
}

function values() {
	setText("write-temperature-value", Number(form.temperature.value).toFixed(2));
	setText("write-top-p-value", Number(form.top_p.value).toFixed(2));
}

form.addEventListener("input", values);
form.addEventListener("submit", (event) => {
	event.preventDefault();
	write(request());
});
at("write-prompt").addEventListener("keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
at("write-stop").addEventListener("click", () => writing?.abort());
for (const button of document.querySelectorAll("[data-copy]"))
	button.addEventListener("click", () => copy(button.dataset.copy));
at("write-inside").addEventListener("click", () => {
	go("inside", { text: at("write-texts").querySelector(".text").textContent, model: made.model });
});
values();

export const view = {
	open(params) {
		if (Object.keys(params).some((key) => key !== "run")) fill(params);
	},

	update(run) {
		listNetworks(form.model, run);
	},

	close() {},
};
