// The runs of the store, with their progress and actions.

import { chooseRun, go } from "../address.js";
import { at, create, download, on, onSubmit, setText } from "../dom.js";
import { call, getJson, ROOT, runUrl } from "../http.js";
import { groupOf, isBusy, lab, placeOf } from "../lab.js";
import { facts, standing } from "../parts/facts.js";
import { fork } from "../parts/fork.js";
import { count } from "../words.js";

const items = new Map(); // run -> its element and the parts that change
const say = (text) => setText("runs-made", text);
let deleting = ""; // the name of the run in the dialog

const ACTIONS = [
	["Watch", (run) => run.step > 0 || run.state === "training", (name) => open(name, "live")],
	["Write", (run) => run.newest, (name) => open(name, "write")],
	["Report", (run) => run.step > 0, (name) => location.assign(`${ROOT}/report?model=${encodeURIComponent(name)}`)],
	["Pause", (run) => ["queued", "training"].includes(run.state), (name) => change(name, "pause")],
	["Resume", (run) => ["paused", "stopped", "failed"].includes(run.state), (name) => change(name, "resume")],
	["Stop", (run) => ["queued", "training", "paused"].includes(run.state), (name) => change(name, "stop")],
	["Move to front", (run) => run.state === "queued" && placeOf(run).place > 1, (name) => putFirst(name)],
	["Fork", (run) => run.newest, (name) => fork(name)],
	["Export", (run) => run.newest, (name) => save(name)],
	["Delete", () => true, (name) => askToDelete(name)],
];

function list(runs) {
	at("runs-empty").hidden = runs.length > 0;
	for (const name of items.keys()) if (!lab.run(name)) items.delete(name);
	// the newest first
	const shown = runs.filter((run) => !groupOf(run));
	const order = shown.reverse().map((run) => {
		if (!items.has(run.name)) items.set(run.name, make(run.name));
		show(items.get(run.name), run);
		return items.get(run.name).element;
	});
	const old = [...at("runs-list").children];
	if (old.length !== order.length || old.some((element, index) => element !== order[index]))
		at("runs-list").replaceChildren(...order);
}

function make(name) {
	const parts = {
		state: create("span", { class: "state" }),
		facts: create("p", { class: "small faint" }),
		reason: create("p", { class: "small bad" }),
	};
	parts.progress = create("progress", { max: "1", "aria-label": `Progress of ${name}` });
	parts.buttons = ACTIONS.map(([label, , act]) =>
		create("button", { type: "button", "aria-label": `${label} ${name}`, onclick: () => act(name) }, label),
	);
	const head = create("div", { class: "run-head" }, create("h2", {}, name), parts.state);
	const actions = create("div", { class: "actions" }, ...parts.buttons);
	parts.element = create("li", { "data-run": name }, head, parts.progress, parts.facts, parts.reason, actions);
	return parts;
}

function show(parts, run) {
	parts.state.textContent = standing(run);
	parts.state.className = `state ${run.stale ? "silent" : run.state}`;
	parts.progress.hidden = !["training", "paused"].includes(run.state);
	parts.progress.value = run.fraction;
	parts.facts.textContent = facts(run).join(" · ");
	parts.reason.textContent = [run.reason, ...run.warnings].filter(Boolean).join(". ");
	parts.reason.hidden = !parts.reason.textContent;
	for (const [index, [, possible]] of ACTIONS.entries()) parts.buttons[index].hidden = !possible(run);
}

const rivals = (name) => lab.runs.filter((run) => run.name !== name && isBusy(run) && !groupOf(run));

const putFirst = (name) =>
	change(name, "prioritise", { priority: Math.max(...rivals(name).map((run) => run.priority)) + 1 });

async function change(name, action, body = { action }) {
	say(`Requesting to ${action} ${name} …`);
	try {
		await call(runUrl(name), {
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
	say(`Exporting ${name} …`);
	try {
		const response = await call(`${runUrl(name)}/export`, { headers: { Accept: "application/zip" } });
		download(await response.blob(), `${name}.zip`);
		say(`Saved ${name}.zip; “Import” restores it, here or on another server.`);
	} catch (error) {
		say(error.message);
	}
}

function askToDelete(name) {
	deleting = name;
	setText("delete-title", `Delete ${name}?`);
	const saved = count(lab.run(name).checkpoints.length, "checkpoint");
	const isLast = !lab.runs.some((run) => run.name !== name && run.newest);
	const last = isLast ? " No other network can be served then." : "";
	setText("delete-what", `Its text, its curve and ${saved} will be deleted permanently.${last}`);
	setText("delete-which", name);
	at("delete-name").value = "";
	confirmName();
	at("delete").showModal();
}

// Only the whole name enables the button.
function confirmName() {
	at("delete-yes").disabled = at("delete-name").value.trim() !== deleting;
}

async function remove() {
	at("delete-yes").disabled = true;
	try {
		await call(`${runUrl(deleting)}?force=true`, { method: "DELETE" });
		say(`Deleted ${deleting}.`);
	} catch (error) {
		say(error.status === 404 ? `${deleting} was already deleted.` : error.message);
	}
	at("delete").close();
	lab.now();
}

async function take(file) {
	if (!file) return;
	say(`Importing ${file.name} …`);
	const form = new FormData();
	form.append("file", file);
	try {
		const run = await getJson("/runs/import", { method: "POST", body: form });
		say(`Imported ${run.name}, after ${count(run.step, "update")}.`);
	} catch (error) {
		say(error.message);
	}
	lab.now();
}

onSubmit(at("delete-form"), remove);
on("delete-name", "input", confirmName);
on("delete-no", "click", () => at("delete").close());
on("runs-import", "change", async (event) => {
	await take(event.target.files[0]);
	event.target.value = "";
});

function open(name, view) {
	chooseRun(name);
	go(view);
}

export const view = {
	update(_, runs) {
		list(runs);
	},
};
