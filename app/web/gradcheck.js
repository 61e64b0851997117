// Runs the check of this URL and shows it as a picture and a table.

import { at, darkScheme, showPicture } from "./dom.js";
import { check, showRows } from "./parts/gradients.js";

const { method, model, cell } = document.querySelector("[data-method]").dataset;
const query = new URLSearchParams({ method, ...(model && { model }), ...(cell && { cell }) });
const draw = () => showPicture(at("picture"), `/gradcheck.svg?${query}`);

const report = await check(query, at("verdict"));
if (report) {
	showRows(at("parameters"), report);
	for (const element of document.querySelectorAll(".result")) element.hidden = false;
	draw();
	darkScheme.addEventListener("change", draw);
}
