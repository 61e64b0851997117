// Follows a run: loads this page again, and takes over its numbers and the new picture.

import { at, darkScheme, repeat, setText, showPicture } from "./dom.js";
import { call } from "./http.js";

const { run } = at("numbers").dataset;
const query = `model=${encodeURIComponent(run)}`;

const draw = () =>
	showPicture(at("picture"), `/loss-curve.svg?${query}&version=${encodeURIComponent(at("numbers").dataset.version)}`);

async function update() {
	try {
		const answer = await call(`/loss-curve?${query}`, { headers: { Accept: "text/html" } });
		const next = new DOMParser().parseFromString(await answer.text(), "text/html");
		const isNewer = next.getElementById("numbers").dataset.version !== at("numbers").dataset.version;
		for (const id of ["numbers", "points"]) at(id).replaceWith(next.getElementById(id));
		if (isNewer) draw();
	} catch (error) {
		setText("state", `not up to date: ${error.message}`);
	}
}

draw();
darkScheme.addEventListener("change", draw);
repeat(update, () => (["training", "queued"].includes(at("numbers").dataset.state) ? 1500 : 10000));
