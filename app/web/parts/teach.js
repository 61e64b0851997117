// The card for your own text: checks it, queues a run, and follows the run.

import { chooseRun } from "../address.js";
import { at, create, on, onSubmit, setText } from "../dom.js";
import { getJson, patiently, runUrl } from "../http.js";
import { isBusy, lab, secondsLeft } from "../lab.js";
import { count, duration, number, percent, sizes } from "../words.js";
import { standing } from "./facts.js";

const form = at("teach");
const settings = [...form.querySelectorAll("[data-setting]")].map((field) => field.name);
const OPTIONS = ["name", "preset", "encoding", ...settings];
const INVITATION = at("teach-chosen").textContent;
const PROMISE = at("teach-made").textContent;
const MINUTES = 3; // of further training
const PARTS = ["drop", "found", "follow", "start", "other", "longer", "paste", "settings", "first-label"];
const FACES = {
	idle: ["drop", "paste", "settings"],
	refused: ["drop", "found", "paste", "settings"],
	found: ["found", "start", "other", "settings", "first-label"],
	following: ["follow", "other"],
};

let files = [];
let looking = null; // an AbortController while a text is checked
let soon = 0;
let found = null; // the result of the last check
let followed = ""; // the run that the card shows
let results = null; // {run, share, first, loss, ngram, passes} of a finished run

const brought = () => files.length > 0 || form.text.value !== "";
const others = () => lab.runs.filter((run) => isBusy(run) && run.name !== followed);

function body() {
	const data = new FormData();
	for (const name of OPTIONS) if (form[name].value) data.append(name, form[name].value);
	if (form.amount.value) data.append(form.unit.value, form.amount.value);
	if (form.text.value) data.append("file", new Blob([form.text.value], { type: "text/plain" }), "pasted.txt");
	else for (const file of files) data.append("file", file);
	return data;
}

// Puts the run before all others if the user wants that.
function inFront(data) {
	if (at("teach-first").checked && others().length) {
		data.append("priority", Math.min(1000, 1 + Math.max(...others().map((run) => run.priority))));
	}
	return data;
}

// Shows one of the card's faces.
function face(name) {
	for (const part of PARTS) at(`teach-${part}`).hidden = !FACES[name].includes(part);
	const [first, ...more] = others();
	if (!first) at("teach-first-label").hidden = true;
	else setText("teach-first-text", `now, while ${more.length ? "the others wait" : `${first.name} waits`}`);
	form.dataset.face = name;
	if (name === "following" && at("teach-made").textContent === PROMISE) setText("teach-made", "");
}

// Files replace a pasted text, and vice versa.
export function take(list) {
	if (!list.length) return;
	if (followed) another();
	files = [...list];
	found = null;
	at("teach-file").value = ""; // so that the same file can be chosen again
	form.text.value = "";
	setText("teach-chosen", files.length === 1 ? files[0].name : `${files.length} files`);
	look();
}

async function look() {
	looking?.abort();
	if (!brought() || !form.checkValidity()) return;
	const mine = new AbortController();
	looking = mine;
	setText("teach-made", "Reading …");
	try {
		found = await getJson("/runs/check", { method: "POST", body: body(), signal: mine.signal });
		if (mine === looking) describe();
	} catch (error) {
		if (mine === looking && error.name !== "AbortError") refused(error);
	}
}

function describe() {
	const text = `${count(found.characters, "character")}, ${found.distinct_characters} distinct`;
	setText("teach-summary", `${found.corpus}: ${text}`);
	setText("teach-beginning", found.beginning);
	at("teach-beginning").hidden = false;
	const end = new Date(Date.now() + 1000 * found.expected_seconds);
	const clock = end.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false });
	const [low, high] = found.expected_loss.map((loss) => number(Math.exp(loss), 1));
	const time = `${duration(found.expected_seconds)}, until ${clock} if started now`;
	setText("teach-expected", `${sizes(found)}: ${time}. Then expect it to choose among ${low} to ${high} characters.`);
	list(found.findings);
	form.name.placeholder = found.name;
	setText("teach-made", "");
	face("found");
}

function list(findings) {
	const name = ({ file }) => (file && files.length > 1 ? `${file}: ` : "");
	const items = findings.map((finding) => create("li", { class: finding.level }, `${name(finding)}${finding.message}`));
	at("teach-findings").replaceChildren(...items);
}

function refused(error) {
	const findings = error.details.filter((detail) => detail.level);
	list(findings);
	at("teach-beginning").hidden = true;
	setText("teach-expected", "");
	setText("teach-summary", findings.length ? "This text cannot be used:" : "");
	setText("teach-made", findings.length ? "" : error.message);
	face(findings.length ? "refused" : "idle");
}

async function send(address, data) {
	at("teach-start").disabled = at("teach-longer").disabled = true;
	setText("teach-made", "Sending …");
	try {
		const busy = (words) => setText("teach-made", words);
		const run = await patiently(() => getJson(address, { method: "POST", body: inFront(data) }), busy);
		followed = run.name;
		results = null;
		setText("teach-made", "");
		await lab.refresh();
		chooseRun(run.name);
	} catch (error) {
		refused(error);
	} finally {
		at("teach-start").disabled = at("teach-longer").disabled = false;
	}
}

// Continues the training of the network in a new run.
function longer() {
	const base = followed.replace(/-\d+$/, "");
	let number = 2;
	while (lab.run(`${base}-${number}`)) number += 1;
	const data = new FormData();
	data.append("minutes", String(MINUTES));
	data.append("name", `${base}-${number}`.slice(-64));
	send(`${runUrl(followed)}/fork`, data);
}

function another() {
	followed = "";
	found = null;
	files = [];
	form.reset();
	setText("teach-chosen", INVITATION);
	setText("teach-made", PROMISE);
	face("idle");
}

function stateInWords(run) {
	const left = run.state === "training" && run.expected_end ? `, ${duration(secondsLeft(run))} left` : "";
	const why = run.reason ? `: ${run.reason}` : "";
	return run.state === "finished" ? "It has learned." : `It is ${standing(run)}${left}${why}.`;
}

// A summary of a finished run.
function ended({ share, first, loss, ngram, passes }) {
	const parts = [];
	if (passes) parts.push(`It read the text ${number(passes, passes < 10 ? 1 : 0)} times.`);
	const before = first === null ? "" : `, compared with ${percent(first)} at the start`;
	if (share !== null) parts.push(`${percent(share)} of the words it writes are real${before}.`);
	if (loss !== null) {
		const judged = loss < ngram ? "better than" : "not yet as good as";
		const compared = ngram ? `: ${judged} a 5-gram (${number(Math.exp(ngram), 1)})` : "";
		parts.push(`It wavers between ${number(Math.exp(loss), 1)} characters${compared}.`);
	}
	return parts.join(" ");
}

function follow(run) {
	face("following");
	setText("teach-title", `Your text: ${run.corpus}`);
	setText("teach-state", stateInWords(run));
	at("teach-progress").hidden = !["training", "queued", "paused"].includes(run.state);
	at("teach-progress").value = run.fraction;
	setText("teach-ended", run.state === "finished" && results?.run === run.name ? ended(results) : "");
	at("teach-longer").hidden = !["finished", "stopped"].includes(run.state) || !run.newest;
}

// Takes over the results from the figures of the passage.
export function conclude(summary) {
	results = summary;
	const run = lab.run(followed);
	if (run) follow(run);
}

export function update(run) {
	if (run && lab.chosen === run.name && isBusy(run)) followed = run.name;
	if (followed && lab.known && !lab.run(followed)) another();
	if (run && followed === run.name) follow(run);
	else if (form.dataset.face === "following" || !form.dataset.face) {
		setText("teach-title", "Teach it your own text");
		setText("teach-made", PROMISE);
		face("idle");
	}
}

onSubmit(form, () => {
	if (!found || !brought()) return;
	window.clearTimeout(soon);
	looking?.abort();
	looking = null;
	send("/runs", body());
});
form.addEventListener("input", (event) => {
	if (event.target === form.text) files = [];
	if (["file", "checkbox"].includes(event.target.type) || event.target === form.name) return;
	window.clearTimeout(soon);
	soon = window.setTimeout(look, 400);
});
on("teach-file", "change", () => take([...at("teach-file").files]));
take([...at("teach-file").files]); // chosen before this module was loaded
on("teach-other", "click", another);
on("teach-longer", "click", longer);
document.addEventListener("key-changed", look);
