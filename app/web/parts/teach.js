// Your own text: looked at first, then taught; the page stays with it until it has been learned.

import { chooseRun } from "../address.js";
import { at, create, setText } from "../dom.js";
import { getJson, patiently } from "../http.js";
import { isBusy, lab } from "../lab.js";
import { duration, number, percent, sizes } from "../words.js";

const form = at("teach");
const settings = [...form.querySelectorAll("[data-setting]")].map((field) => field.name);
const OPTIONS = ["name", "preset", "encoding", ...settings];
const INVITATION = at("teach-chosen").textContent;
const PROMISE = at("teach-made").textContent;
const MINUTES = 3; // of one more training

let files = [];
let looking = null; // an AbortController while a text is looked at
let soon = 0;
let found = null; // the answer to the last look
let followed = ""; // the run that the card stays with
let results = null; // {run, share, first, loss, ngram, passes}: what it has come to

const brought = () => files.length > 0 || form.text.value !== "";
const others = () => lab.runs.filter((run) => isBusy(run) && run.name !== followed);
const url = (name) => `/runs/${encodeURIComponent(name)}`;

function body() {
	const data = new FormData();
	for (const name of OPTIONS) if (form[name].value) data.append(name, form[name].value);
	if (form.amount.value) data.append(form.unit.value, form.amount.value);
	if (form.text.value) data.append("file", new Blob([form.text.value], { type: "text/plain" }), "pasted.txt");
	else for (const file of files) data.append("file", file);
	return data;
}

// Above everything that is trained or waits, if a person wants that.
function inFront(data) {
	if (at("teach-first").checked && others().length) {
		data.append("priority", Math.min(1000, 1 + Math.max(...others().map((run) => run.priority))));
	}
	return data;
}

// Shows one of the card's faces: "idle", "found", "refused" or "following".
function face(name) {
	const following = name === "following";
	at("teach-drop").hidden = name === "found" || following;
	at("teach-found").hidden = name === "idle" || following;
	at("teach-follow").hidden = !following;
	at("teach-start").hidden = name !== "found";
	at("teach-other").hidden = name !== "found" && !following;
	at("teach-longer").hidden = true;
	at("teach-paste").hidden = name === "found" || following;
	at("teach-settings").hidden = following;
	at("teach-first-label").hidden = name !== "found" || others().length === 0;
	const [first] = others();
	if (first)
		setText("teach-first-text", `now, while ${others().length > 1 ? "the others wait" : `${first.name} waits`}`);
	form.dataset.face = name;
	if (following && at("teach-made").textContent === PROMISE) setText("teach-made", "");
}

// A text from a file takes the place of a pasted one, and the other way round.
export function take(list) {
	if (!list.length) return;
	another();
	files = [...list];
	form.text.value = "";
	setText("teach-chosen", files.length === 1 ? files[0].name : `${files.length} files`);
	look();
}

async function look() {
	looking?.abort();
	if (!brought() || !form.checkValidity()) return;
	const mine = new AbortController();
	looking = mine;
	setText("teach-made", "Reading it …");
	try {
		found = await getJson("/runs/check", { method: "POST", body: body(), signal: mine.signal });
		if (mine === looking) describe();
	} catch (error) {
		if (mine === looking && error.name !== "AbortError") refused(error);
	}
}

function describe() {
	const text = `${number(found.characters, 0)} characters, ${found.distinct_characters} different ones`;
	setText("teach-summary", `${found.corpus}: ${text}`);
	setText("teach-beginning", found.beginning);
	at("teach-beginning").hidden = false;
	const end = new Date(Date.now() + 1000 * found.expected_seconds);
	const clock = end.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false });
	const among = number(Math.exp(found.expected_loss), 1);
	const time = `${duration(found.expected_seconds)}, until ${clock} if it begins now`;
	setText("teach-expected", `${sizes(found)}: ${time}. By then expect it to waver between ${among} characters.`);
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
	setText("teach-summary", findings.length ? "This text cannot be learned from:" : "");
	setText("teach-made", findings.length ? "" : error.message);
	face(findings.length ? "refused" : "idle");
}

async function send(address, data) {
	at("teach-start").disabled = at("teach-longer").disabled = true;
	setText("teach-made", "Sending …");
	try {
		const busy = (seconds) => setText("teach-made", `The server is busy; trying again in ${seconds} s …`);
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

// The same network goes on learning, as a run of its own.
function longer() {
	const base = followed.replace(/-\d+$/, "");
	let number = 2;
	while (lab.run(`${base}-${number}`)) number += 1;
	const data = new FormData();
	data.append("minutes", String(MINUTES));
	data.append("name", `${base}-${number}`.slice(-64));
	send(`${url(followed)}/fork`, data);
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
	const left = run.expected_end ? `, ${duration(Math.max(0, run.expected_end - Date.now() / 1000))} left` : "";
	const ahead = lab.runs.filter((one) => one.name !== run.name && isBusy(one) && one.priority >= run.priority).length;
	return {
		training: run.stale
			? "Its worker has stopped answering."
			: `It is learning: ${Math.floor(100 * run.fraction)}% done${left}.`,
		queued: `It waits for ${ahead > 1 ? `${ahead} others` : "its turn"}.`,
		paused: run.reason ? `It is paused: ${run.reason}` : "It is paused.",
		stopped: "It was stopped. What it has learned so far is kept.",
		failed: `It has failed: ${run.reason ?? "see the log of the worker"}`,
		finished: "It has learned.",
	}[run.state];
}

// How it went, in words.
function ended() {
	const { share, first, loss, ngram, passes } = results;
	const parts = [];
	if (passes) parts.push(`It read the text ${number(passes, passes < 10 ? 1 : 0)} times.`);
	if (share !== undefined && share !== null) {
		const before = first === undefined ? "" : `, after ${percent(first ?? 0)} at the start`;
		parts.push(`${percent(share)} of the words it writes are real${before}.`);
	}
	if (loss !== null) {
		const judged =
			loss < ngram ? "better than counting five characters" : "not yet as good as counting five characters";
		const compared = ngram ? `: ${judged} at a time (${number(Math.exp(ngram), 1)})` : "";
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
	setText("teach-ended", run.state === "finished" && results?.run === run.name ? ended() : "");
	at("teach-longer").hidden = !["finished", "stopped"].includes(run.state) || !run.newest;
}

// What the run has come to, as the figures beside its passage show it.
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

form.addEventListener("submit", (event) => {
	event.preventDefault();
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
at("teach-file").addEventListener("change", () => take([...at("teach-file").files]));
if (at("teach-file").files.length) take([...at("teach-file").files]); // chosen before this module was here
at("teach-other").addEventListener("click", another);
at("teach-longer").addEventListener("click", longer);
document.addEventListener("key-changed", look); // a key that was given lets the text be looked at
