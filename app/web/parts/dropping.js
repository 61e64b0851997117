// A file may be dropped anywhere on the page: it is taken as a text to learn from.

import { go } from "../address.js";
import { lab } from "../lab.js";

const dragging = (is) => document.body.classList.toggle("dragging", is);

window.addEventListener("dragover", (event) => {
	event.preventDefault(); // or the browser would leave the page for the file
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
