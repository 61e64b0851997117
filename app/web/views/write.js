// Writes with a network: one text, several, or two side by side, and the means to get exactly these again.

import { chooseRun, go } from "../address.js";
import { at, create, setText } from "../dom.js";
import { credentials, ROOT } from "../http.js";
import { lab } from "../lab.js";
import { alternatives } from "../parts/alternatives.js";
import { chooseNetwork, listNetworks } from "../parts/networks.js";
import { PromptBox } from "../parts/prompt.js";
import { drawnSeed, keep, stream } from "../parts/writing.js";
import { number } from "../words.js";

const form = at("write-form");
const box = new PromptBox(at("write-prompt"), at("write-unknown"), form.model);
const NUMBERS = ["length", "temperature", "top_k", "top_p", "seed", "n"];
const NEUTRAL = { top_k: 0, top_p: 1, n: 1 };
const TEMPERATURE = "temperature"; // the choice of a second temperature, among names of runs

let writing = null; // an AbortController while a text is written
let made = []; // the requests that give what is shown again
let sheets = []; // {element, written, asked, choice} of each text that is shown

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

// One request, or two of one text each with the same seed.
function requests() {
	const asked = request();
	if (!form.against.value) return [asked];
	const { n, ...single } = asked;
	const byHeat = form.against.value === TEMPERATURE;
	const change = byHeat ? { temperature: Number(form.second.value) } : { model: form.against.value };
	return [single, { ...single, ...change }];
}

const heading = (asked) => `${asked.model ?? "newest"}, temperature ${asked.temperature ?? 1}`;

function lay(all) {
	sheets = all.flatMap((asked) =>
		Array.from({ length: asked.n ?? 1 }, (_, choice) => {
			const written = document.createTextNode("");
			const label = all.length > 1 ? heading(asked) : `Text ${choice + 1}`;
			const attributes = { class: "text writing", tabindex: "0", "aria-label": label, dir: "auto" };
			const text = create("pre", attributes, create("span", { class: "prompt" }, asked.prompt), written);
			const title = all.length > 1 ? [create("h2", {}, label)] : [];
			return { element: text, sheet: create("div", { class: "sheet" }, ...title, text), written, asked, choice };
		}),
	);
	at("write-texts").replaceChildren(...sheets.map(({ sheet }) => sheet));
}

async function write(all) {
	writing?.abort();
	const mine = new AbortController();
	writing = mine;
	begin();
	try {
		const answers = await Promise.all(all.map((asked) => receive(asked, mine.signal)));
		made = answers.map(({ model, seed }, index) => ({ ...all[index], model, seed }));
		describe(answers);
		for (const { element } of sheets) element.scrollTop = 0;
	} catch (error) {
		if (mine === writing) failed(error, all[0]);
		mine.abort();
	} finally {
		for (const { element } of sheets) element.classList.remove("writing");
		if (mine === writing) end();
	}
}

function receive(asked, signal) {
	return stream(asked, {
		signal,
		waiting: (seconds) => setText("write-made", `The server is busy; trying again in ${seconds} s …`),
		take: (choice, text, ended) => {
			const { element, written } = sheets.find((sheet) => sheet.asked === asked && sheet.choice === choice);
			const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
			written.appendData(text);
			if (follows) element.scrollTop = element.scrollHeight;
			if (ended) element.classList.remove("writing");
		},
	});
}

function describe(answers) {
	const [{ model, seed, length, finish_reason: reason }] = answers;
	const stopped = reason === "stop" ? ", ended by the stop string" : "";
	const names = [...new Set(answers.map((answer) => answer.model))].join(" and ");
	setText("write-made", `${names || model}, seed ${seed}, ${number(length, 0)} characters${stopped}`);
}

function failed(error, asked) {
	const count = Math.max(0, ...sheets.map(({ written }) => written.length));
	made = [];
	if (error.name === "AbortError") setText("write-made", `Stopped after ${count} characters; seed ${asked.seed}.`);
	else if (box.refused(error)) {
		setText("write-made", "");
		at("write-texts").replaceChildren();
		at("write-empty").hidden = false;
		at("write-prompt").focus();
	} else if (error.status === 404) {
		setText("write-made", `${error.message} It may have been deleted meanwhile: choose another network.`);
	} else if (count) {
		setText("write-made", `${error.message}, after ${count} characters. Seed ${asked.seed} gives the same text again.`);
	} else setText("write-made", error.message);
}

function begin() {
	at("write-empty").hidden = true;
	at("write-again").hidden = true;
	at("write-stop").hidden = false;
	at("write-go").hidden = true;
	setText("write-copied", "");
	setText("write-kept", "");
	setText("write-made", "");
}

function end() {
	writing = null;
	at("write-stop").hidden = true;
	at("write-go").hidden = false;
	at("write-again").hidden = sheets.every(({ written }) => !written.length) || at("write-empty").hidden === false;
	at("write-copies").hidden = made.length === 0;
	if (made.length) setText("write-code", [again.link(), again.curl(), again.python()].join("\n\n"));
}

function start(all) {
	lay(all);
	write(all);
}

// The first text goes on from where it ends.
function continued() {
	const [{ element, written, sheet }] = sheets;
	const most = Number(box.area.dataset.most);
	const { n, ...asked } = { ...request(), prompt: [...element.textContent].slice(-most).join("") };
	if (form.seed.value) asked.seed = drawnSeed();
	sheets = [{ element, written, sheet, asked, choice: 0 }];
	at("write-texts").replaceChildren(sheet);
	element.classList.add("writing");
	element.scrollTop = element.scrollHeight;
	write([asked]);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Ways to the very same texts.
const again = {
	text: () => sheets.map(({ element }) => element.textContent).join("\n\n"),
	link: () => made.map((asked) => `${location.origin}${ROOT}/#write?${new URLSearchParams(asked)}`).join("\n"),
	curl: () => {
		const key = credentials().Authorization ? ' -H "Authorization: Bearer $CHARLOOM_KEY"' : "";
		const head = `curl -s ${location.origin}${ROOT}/generate${key} -H 'Content-Type: application/json' \\\n  -d `;
		return made.map((asked) => head + quoted(JSON.stringify(asked))).join("\n");
	},
	python: () =>
		[
			"import httpx",
			"",
			`for request in ${JSON.stringify(made, null, 4)}:`,
			`    answer = httpx.post("${location.origin}${ROOT}/generate", json=request, timeout=60).json()`,
			'    for choice in answer.get("choices") or [answer]:',
			'        print(request["prompt"] + choice["text"])',
		].join("\n"),
};

// Training removes most checkpoints after some minutes; those that a copied request names are kept.
async function keepAll() {
	try {
		for (const model of new Set(made.map((asked) => asked.model))) await keep(model);
		setText("write-kept", "The server keeps this checkpoint, so that the same text can be written later.");
	} catch (error) {
		setText("write-kept", `This checkpoint may be removed as training goes on: ${error.message}.`);
	}
}

async function copy(kind) {
	const text = again[kind]();
	if (kind !== "text") keepAll();
	try {
		await navigator.clipboard.writeText(text);
		setText("write-copied", kind === "text" ? "" : "Copied.");
		if (kind === "text") setText("write-made", "Copied.");
	} catch {
		// without a secure context there is no clipboard: the text is shown, and selected
		setText("write-copied", "This browser does not let the page copy: here it is, to be copied by hand.");
		setText("write-code", text);
		at("write-code").closest("details").open = true;
		getSelection().selectAllChildren(at("write-code"));
	}
}

function save() {
	const link = create("a", { download: `${(made[0]?.model ?? "text").replace("@", "-")}.txt` });
	link.href = URL.createObjectURL(new Blob([again.text()], { type: "text/plain" }));
	link.click();
	window.setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// A link that says what to write: fills in the form, and writes if it names a seed.
function fill(asked) {
	box.set(asked.prompt ?? "");
	for (const name of NUMBERS) form[name].value = asked[name] ?? NEUTRAL[name] ?? "";
	form.length.value ||= 400;
	if (asked.temperature === undefined) form.temperature.value = 0.8;
	if (form.top_k.value === "0") form.top_k.value = "";
	form.stop.value = escapeBreaks(asked.stop ?? "");
	form.against.value = "";
	if (asked.model) {
		const run = asked.model.split("@")[0];
		if (lab.run(run) && lab.shown()?.name !== run) chooseRun(run);
		chooseNetwork(form.model, asked.model);
	}
	values();
	if (asked.seed !== undefined) start([request()]);
}

function values() {
	setText("write-temperature-value", Number(form.temperature.value).toFixed(2));
	setText("write-top-p-value", Number(form.top_p.value).toFixed(2));
	setText("write-second-value", Number(form.second.value).toFixed(2));
	at("write-second").hidden = form.against.value !== TEMPERATURE;
	form.n.disabled = form.against.value !== "";
}

function listRivals(run, runs) {
	const names = runs.filter((one) => one.newest && one.name !== run?.name).map((one) => one.name);
	if (form.against.dataset.names === names.join() || document.activeElement === form.against) return;
	const before = form.against.value;
	form.against.dataset.names = names.join();
	const options = [["", "nothing"], [TEMPERATURE, "a second temperature"], ...names.map((name) => [name, name])];
	form.against.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
	form.against.value = options.some(([value]) => value === before) ? before : "";
	values();
}

form.addEventListener("input", values);
form.addEventListener("submit", (event) => {
	event.preventDefault();
	start(requests());
});
at("write-prompt").addEventListener("keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
at("write-stop").addEventListener("click", () => writing?.abort());
at("write-on").addEventListener("click", continued);
at("write-anew").addEventListener("click", () => {
	form.seed.value = "";
	form.requestSubmit();
});
at("write-save").addEventListener("click", save);
at("write-inside").addEventListener("click", () => {
	go("inside", { text: sheets[0].element.textContent, model: made[0]?.model ?? sheets[0].asked.model });
});
for (const button of document.querySelectorAll("[data-copy]")) {
	button.addEventListener("click", () => copy(button.dataset.copy));
}
alternatives(at("write-texts"), (element) => {
	const index = sheets.findIndex((sheet) => sheet.element === element);
	if (writing || index < 0) return null;
	return made[Math.min(index, made.length - 1)]?.model ?? null;
});

export const view = {
	open(params) {
		if (Object.keys(params).length) fill(params);
	},

	update(run, runs) {
		listNetworks(form.model, run);
		listRivals(run, runs);
	},

	close() {},
};
