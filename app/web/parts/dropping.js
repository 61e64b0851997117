// Accepts files dropped anywhere on the page as texts to train on.

import { go } from "../address.js";
import { lab } from "../lab.js";

const dragging = (is) => document.body.classList.toggle("dragging", is);

window.addEventListener("dragover", (event) => {
	event.preventDefault(); // otherwise the browser opens the file
	if (event.dataTransfer?.types.includes("Files")) dragging(true);
});
window.addEventListener("dragleave", (event) => event.relatedTarget || dragging(false));
window.addEventListener("drop", async (event) => {
	dragging(false);
	const files = [...event.dataTransfer.files];
	if (!files.length) return;
	event.preventDefault();
	go("live");
	const teach = await import("./teach.js");
	teach.take(files);
	lab.now();
});
