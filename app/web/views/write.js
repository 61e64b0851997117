// Generates one text, several, or two side by side, with ways to reproduce them.

import { chooseRun, go } from "../address.js";
import { at, create, download, on, onSubmit, setOptions, setText } from "../dom.js";
import { ROOT } from "../http.js";
import { lab } from "../lab.js";
import { alternatives } from "../parts/alternatives.js";
import { chooseCheckpoint, listCheckpoints } from "../parts/checkpoints.js";
import { PromptBox } from "../parts/prompt.js";
import { drawnSeed, keep, stream, writeInto } from "../parts/writing.js";
import { count, parseModel } from "../words.js";

const form = at("write-form");
const box = new PromptBox(at("write-prompt"), at("write-unknown"), form.model);
const NUMBERS = ["length", "temperature", "top_k", "top_p", "seed", "n"];
const NEUTRAL = { top_k: 0, top_p: 1, n: 1 };
const TEMPERATURES = [0, 0.3, 0.6, 1, 1.3].map((value) => [`temperature ${value}`, `temperature ${value}`]);

let writing = null; // an AbortController while a text is generated
let made = []; // requests that reproduce the texts shown
let sheets = []; // {element, sheet, add, asked, choice} of each text shown

const lengthOf = ({ element, asked }) => element.textContent.length - asked.prompt.length;

function request() {
	const asked = { prompt: form.prompt.value };
	if (form.model.value) asked.model = form.model.value;
	for (const name of NUMBERS) {
		const value = form[name].value;
		if (value !== "" && Number(value) !== NEUTRAL[name]) asked[name] = Number(value);
	}
	asked.seed ??= drawnSeed();
	if (form.stop.value) asked.stop = form.stop.value.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
	return asked;
}

// One request, or two with one text each and the same seed.
function requests() {
	const asked = request();
	if (!form.against.value) return [asked];
	const { n, ...single } = asked;
	const [what, value] = form.against.value.split(" ");
	return [single, { ...single, ...(value ? { temperature: Number(value) } : { model: what }) }];
}

const heading = (asked) => `${asked.model ?? "newest"}, temperature ${asked.temperature ?? 1}`;

function lay(all) {
	sheets = all.flatMap((asked) =>
		Array.from({ length: asked.n ?? 1 }, (_, choice) => {
			const label = all.length > 1 ? heading(asked) : `Text ${choice + 1}`;
			const element = create("pre", { class: "text", tabindex: "0", role: "group", "aria-label": label, dir: "auto" });
			const title = all.length > 1 ? [create("h2", {}, label)] : [];
			const sheet = create("div", { class: "sheet" }, ...title, element);
			return { element, sheet, add: writeInto(element, asked.prompt), asked, choice };
		}),
	);
	at("write-texts").replaceChildren(...sheets.map(({ sheet }) => sheet));
}

async function write(all) {
	writing?.abort();
	const mine = new AbortController();
	writing = mine;
	show(true);
	for (const id of ["write-copied", "write-made"]) setText(id, "");
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
		if (mine === writing) {
			writing = null;
			show(false);
		}
	}
}

function receive(asked, signal) {
	return stream(asked, {
		signal,
		waiting: (words) => setText("write-made", words),
		take: (choice, text, ended) => {
			const { element, add } = sheets.find((sheet) => sheet.asked === asked && sheet.choice === choice);
			add(text);
			if (ended) element.classList.remove("writing");
		},
	});
}

function describe(answers) {
	const [{ model, seed, length, finish_reason: reason }] = answers;
	const stopped = reason === "stop" ? ", ended by the stop string" : "";
	const names = [...new Set(answers.map((answer) => answer.model))].join(" and ");
	setText("write-made", `${names || model}, seed ${seed}, ${count(length, "character")}${stopped}`);
}

function failed(error, asked) {
	const length = Math.max(0, ...sheets.map(lengthOf));
	const after = `after ${count(length, "character")}`;
	made = [];
	if (error.name === "AbortError") setText("write-made", `Stopped ${after}; seed ${asked.seed}.`);
	else if (box.refused(error)) {
		setText("write-made", "");
		sheets = [];
		at("write-texts").replaceChildren();
		at("write-prompt").focus();
	} else {
		const gone = error.status === 404 ? " It may have been deleted meanwhile: choose another network." : "";
		const again = length ? `, ${after}. Seed ${asked.seed} gives the same text again.` : "";
		setText("write-made", error.message + gone + again);
	}
}

function show(isWriting) {
	at("write-empty").hidden = isWriting || sheets.length > 0;
	at("write-stop").hidden = !isWriting;
	at("write-go").hidden = isWriting;
	at("write-again").hidden = isWriting || !sheets.some(lengthOf);
	at("write-copies").hidden = made.length === 0;
	if (made.length) setText("write-code", [again.link(), again.python()].join("\n\n"));
}

function start(all) {
	lay(all);
	write(all);
}

// Continues the first text.
function continued() {
	const [{ element, sheet }] = sheets;
	const most = Number(box.area.dataset.most);
	const { n, ...asked } = { ...request(), prompt: [...element.textContent].slice(-most).join("") };
	if (form.seed.value) asked.seed = drawnSeed();
	at("write-texts").replaceChildren(sheet);
	sheets = [{ element, sheet, add: writeInto(element), asked, choice: 0 }];
	write([asked]);
}

// Ways to reproduce the texts.
const again = {
	text: () => sheets.map(({ element }) => element.textContent).join("\n\n"),
	link: () => made.map((asked) => `${location.origin}${ROOT}/#write?${new URLSearchParams(asked)}`).join("\n"),
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

// Training deletes most checkpoints after some minutes; those that a copied request names are kept.
async function keepAll() {
	try {
		for (const model of new Set(made.map((asked) => asked.model))) await keep(model);
		return "The server keeps this checkpoint, so that the same text can be written later.";
	} catch (error) {
		return `Training may delete this checkpoint: ${error.message}.`;
	}
}

async function copy(kind) {
	const line = kind === "text" ? "write-made" : "write-copied";
	let copied = "Copied.";
	try {
		await navigator.clipboard.writeText(again[kind]());
	} catch {
		// no clipboard without a secure context: show and select the text
		copied = "The browser does not allow the page to copy. Copy this by hand:";
		at("write-code").closest("details").open = true;
		setText("write-code", again[kind]());
		getSelection().selectAllChildren(at("write-code"));
	}
	setText(line, copied);
	if (kind !== "text") setText(line, `${copied} ${await keepAll()}`);
}

function save() {
	const name = parseModel(made[0]?.model ?? "text").join("-");
	download(new Blob([again.text()], { type: "text/plain" }), `${name}.txt`);
}

// Fills in the form from a link, and generates if it has a seed.
function fill(asked) {
	form.reset();
	for (const name of [...NUMBERS, "prompt"]) if (asked[name] !== undefined) form[name].value = asked[name];
	form.stop.value = (asked.stop ?? "").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
	if (asked.model) {
		const [run] = parseModel(asked.model);
		if (lab.run(run) && lab.shown()?.name !== run) chooseRun(run);
		chooseCheckpoint(form.model, asked.model);
	}
	box.check();
	values();
	if (asked.seed !== undefined) start([request()]);
}

function values() {
	setText("write-temperature-value", Number(form.temperature.value).toFixed(2));
	setText("write-top-p-value", Number(form.top_p.value).toFixed(2));
	form.n.disabled = form.against.value !== "";
}

function listRivals(run, runs) {
	const names = runs.filter((one) => one.newest && one.name !== run?.name).map(({ name }) => [name, name]);
	setOptions(form.against, [["", "nothing"], ...names, ...TEMPERATURES]);
	values();
}

form.addEventListener("input", values);
onSubmit(form, () => start(requests()));
on("write-prompt", "keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
on("write-stop", "click", () => writing?.abort());
on("write-on", "click", continued);
on("write-anew", "click", () => {
	form.seed.value = "";
	form.requestSubmit();
});
on("write-save", "click", save);
on("write-inside", "click", () => {
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
		listCheckpoints(form.model, run);
		listRivals(run, runs);
	},
};
