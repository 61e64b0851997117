// The runs of the store, each with its progress and what can be asked of it.

import { chooseRun, go } from "../address.js";
import { at, create, setText } from "../dom.js";
import { call, getJson, ROOT } from "../http.js";
import { isBusy, isTraining, lab } from "../lab.js";
import { fork } from "../parts/fork.js";
import { duration, heldOut, number, sizes, stateOf } from "../words.js";

const items = new Map(); // run -> its element and what in it changes
const say = (text) => setText("runs-made", text);
const url = (name) => `/runs/${encodeURIComponent(name)}`;
const openReport = (name) => location.assign(`${ROOT}/report?model=${encodeURIComponent(name)}`);
let deleting = null;

const ACTIONS = [
	["Watch", (run) => run.step > 0 || run.state === "training", (name) => open(name, "live")],
	["Write", (run) => run.newest, (name) => open(name, "write")],
	["Report", (run) => run.step > 0, (name) => openReport(name)],
	["Pause", (run) => ["queued", "training"].includes(run.state), (name) => change(name, "pause")],
	["Resume", (run) => ["paused", "stopped", "failed"].includes(run.state), (name) => change(name, "resume")],
	["Stop", (run) => ["queued", "training", "paused"].includes(run.state), (name) => change(name, "stop")],
	["Put first", (run) => run.state === "queued" && rivals(run.name).length > 0, (name) => putFirst(name)],
	["Fork", (run) => run.newest, (name) => fork(name)],
	["Export", (run) => run.newest, (name) => save(name)],
	["Delete", () => true, (name) => askToDelete(name)],
];

function list(runs) {
	at("runs-empty").hidden = runs.length > 0;
	for (const [name, item] of items) {
		if (!lab.run(name) || groupOf(lab.run(name))) {
			item.element.remove();
			items.delete(name);
		}
	}
	// newest first: what one has just started stands at the top
	const shown = runs.filter((run) => !groupOf(run));
	const order = [...shown].reverse().map((run) => {
		if (!items.has(run.name)) items.set(run.name, make(run.name));
		show(items.get(run.name), run);
		return items.get(run.name).element;
	});
	order.forEach((element, index) => {
		const there = at("runs-list").children[index];
		if (there !== element) at("runs-list").insertBefore(element, there ?? null);
	});
}

function make(name) {
	const parts = {
		state: create("span", { class: "state" }),
		facts: create("p", { class: "small faint" }),
		reason: create("p", { class: "small bad" }),
	};
	parts.progress = create("progress", { max: "1", "aria-label": `Part of ${name} that is done` });
	parts.buttons = ACTIONS.map(([label, , act]) =>
		create("button", { type: "button", "aria-label": `${label} ${name}`, onclick: () => act(name) }, label),
	);
	const head = create("div", { class: "run-head" }, create("h4", {}, name), parts.state);
	const actions = create("div", { class: "actions" }, ...parts.buttons);
	parts.element = create("li", { "data-run": name }, head, parts.progress, parts.facts, parts.reason, actions);
	return parts;
}

function show(parts, run) {
	const set = (element, text) => {
		if (element.textContent !== text) element.textContent = text;
	};
	set(parts.state, standing(run));
	parts.state.className = `state ${run.stale ? "silent" : run.state}`;
	parts.progress.hidden = !["training", "paused"].includes(run.state);
	parts.progress.value = run.fraction;
	set(parts.facts, facts(run).join(" · "));
	set(parts.reason, [run.reason, ...run.warnings].filter(Boolean).join(". "));
	parts.reason.hidden = !parts.reason.textContent;
	for (const [index, [, possible]] of ACTIONS.entries()) parts.buttons[index].hidden = !possible(run);
}

// The state in words; of a run that waits, its place in the queue and, where it is known, when it starts.
function standing(run) {
	if (run.state !== "queued") return stateOf(run);
	const before = rivals(run.name).filter((other) => isBefore(other, run));
	const [first, ...others] = before;
	if (!first) return lab.runs.some(isTraining) ? "waits, next in line" : "waits for a worker";
	if (others.length) return `waits, ${number(before.length, 0)} runs before it`;
	const seconds = isTraining(first) && first.expected_end ? first.expected_end - Date.now() / 1000 : null;
	return seconds > 0 ? `next, starts in about ${duration(seconds)}` : `next, after ${first.name}`;
}

// Whether the worker takes `one` before `other`: what trains goes on, then the higher priority, then the older run.
function isBefore(one, other) {
	if (one.state === "training") return true;
	if (one.priority !== other.priority) return one.priority > other.priority;
	return lab.runs.indexOf(one) < lab.runs.indexOf(other);
}

function facts(run) {
	const found = [
		sizes(run),
		`${run.corpus}, ${number(run.characters, 0)} characters`,
		`${number(run.step, 0)} updates`,
	];
	if (run.validation_loss !== null) found.push(`held-out loss ${heldOut(run, 2)}`);
	else if (run.smooth_loss !== null) found.push(`smooth loss ${number(run.smooth_loss, 2)}`);
	if (isTraining(run) && run.expected_end)
		found.push(`${duration(Math.max(0, run.expected_end - Date.now() / 1000))} left`);
	if (run.parent) found.push(`forked from ${run.parent}`);
	const members = lab.runs.filter((member) => groupOf(member) === run);
	const finished = members.filter((member) => member.state === "finished").length;
	if (members.length) found.push(`${finished} of ${members.length} members trained apart are finished`);
	else if (run.parts.length) found.push(`merged from ${run.parts.join(", ")}`);
	return found;
}

const rivals = (name) => lab.runs.filter((run) => run.name !== name && isBusy(run) && !groupOf(run));

// The group that a run is trained apart as a member of, if that is here: it is shown in its place.
const groupOf = (run) => run.group && lab.run(run.group);

const putFirst = (name) =>
	change(name, "go first", { priority: Math.max(...rivals(name).map((run) => run.priority)) + 1 });

async function change(name, action, body = { action }) {
	say(`${name} is asked to ${action} …`);
	try {
		await call(url(name), {
			method: "PATCH",
			headers: { "Content-Type": "application/json" },
			body: JSON.stringify(body),
		});
		say("");
	} catch (error) {
		say(error.message);
	}
	lab.now();
}

async function save(name) {
	say(`${name} is being packed …`);
	try {
		const response = await call(`${url(name)}/export`, { headers: { Accept: "application/zip" } });
		const filename = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? `${name}.zip`;
		const link = create("a", { href: URL.createObjectURL(await response.blob()), download: filename });
		link.click();
		window.setTimeout(() => URL.revokeObjectURL(link.href), 60000);
		say(`${filename} is yours to keep; “Import” takes it in again, here or elsewhere.`);
	} catch (error) {
		say(error.message);
	}
}

function askToDelete(name, refusal = "") {
	const run = lab.run(name);
	deleting = { name, force: Boolean(refusal) };
	setText("delete-title", `Delete ${name}?`);
	setText(
		"delete-what",
		refusal || `Its text, its curve and ${number(run.checkpoints.length, 0)} checkpoints will be gone for good.`,
	);
	setText("delete-yes", refusal ? "Delete it all the same" : "Delete");
	if (at("delete").open) return;
	setText("delete-which", name);
	at("delete-name").value = "";
	confirmName();
	at("delete").showModal();
}

// Only the whole name frees the button.
function confirmName() {
	at("delete-yes").disabled = at("delete-name").value.trim() !== deleting.name;
}

async function remove() {
	const { name, force } = deleting;
	at("delete-yes").disabled = true;
	try {
		await call(`${url(name)}${force ? "?force=true" : ""}`, { method: "DELETE" });
		at("delete").close();
		say(`${name} is deleted.`);
	} catch (error) {
		if (error.status === 409 && !force) askToDelete(name, `${error.message}.`);
		else {
			at("delete").close();
			say(error.status === 404 ? `${name} was deleted already.` : error.message);
		}
	} finally {
		confirmName();
		lab.now();
	}
}

async function take(file) {
	if (!file) return;
	say(`${file.name} is being taken in …`);
	const form = new FormData();
	form.append("file", file);
	try {
		const run = await getJson("/runs/import", { method: "POST", body: form });
		say(`${run.name} is here, at ${number(run.step, 0)} updates.`);
	} catch (error) {
		say(error.message);
	}
	lab.now();
}

at("delete-form").addEventListener("submit", (event) => {
	event.preventDefault();
	remove();
});
at("delete-name").addEventListener("input", confirmName);
at("delete-no").addEventListener("click", () => at("delete").close());
at("runs-import").addEventListener("change", async (event) => {
	await take(event.target.files[0]);
	event.target.value = "";
});

function open(name, view) {
	chooseRun(name);
	go(view);
}

export const view = {
	open() {},

	update(_, runs) {
		list(runs);
	},

	close() {},
};
