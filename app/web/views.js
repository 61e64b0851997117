// Shows the view of the URL, "#name?run=...".
//
// A view is a section in templates/views/ and a module in views/, loaded on demand, that exports `view`:
//
//   open(params)        its URL was opened, with `params` other than the run; optional
//   update(run, runs)   after open, and when runs have changed or another is chosen; `run` may be undefined
//   close()             another view is opened; optional

import { addressOf, parseAddress } from "./address.js";
import { at } from "./dom.js";
import { lab } from "./lab.js";

const MODULES = {
	live: () => import("./views/live.js"),
	write: () => import("./views/write.js"),
	travel: () => import("./views/travel.js"),
	curves: () => import("./views/curves.js"),
	inside: () => import("./views/inside.js"),
	proof: () => import("./views/proof.js"),
	runs: () => import("./views/runs.js"),
};
const links = document.querySelectorAll("[data-view]");

let current = null; // the view shown, once its module is loaded
let name = ""; // its name

async function follow() {
	const { view: asked, params } = parseAddress();
	const known = Object.hasOwn(MODULES, asked);
	if (!known && name) return; // the skip link
	const view = known ? asked : "live";
	const { run, ...more } = params;
	if (run !== undefined) lab.chosen = run;
	if (view !== name) {
		current?.close?.();
		current = null;
		reveal(view);
		const module = await MODULES[view]();
		if (view !== name) return; // another was opened meanwhile
		current = module.view;
		current.open?.(more);
	} else if (Object.keys(more).length) current?.open?.(more);
	update();
}

function reveal(view) {
	const first = name === "";
	name = view;
	for (const section of document.querySelectorAll("main > .view")) section.hidden = section.id !== view;
	for (const link of links) {
		if (link.dataset.view === view) link.setAttribute("aria-current", "page");
		else link.removeAttribute("aria-current");
	}
	if (first) return;
	window.scrollTo(0, 0);
	at(`${view}-title`).focus({ preventScroll: true });
}

function update() {
	for (const link of links) link.href = addressOf(link.dataset.view);
	current?.update(lab.shown(), lab.runs);
}

export async function start() {
	window.addEventListener("hashchange", follow);
	lab.onChange(update);
	await follow();
	// the server may be down when they are opened; one that cannot be loaded now is loaded then
	for (const load of Object.values(MODULES)) load().catch(() => {});
}
