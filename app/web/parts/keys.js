// The field for this tab's API key, shown when the server refuses a request.

import { at, onSubmit, setText } from "../dom.js";
import { useKey } from "../http.js";
import { lab } from "../lab.js";

document.addEventListener("key-refused", ({ detail: message }) => {
	if (at("key-why").textContent !== message) setText("key-why", message);
	at("key").hidden = false;
});

onSubmit(at("key"), () => {
	useKey(at("key-field").value.trim());
	at("key-field").value = "";
	at("key").hidden = true;
	document.dispatchEvent(new Event("key-changed"));
	lab.now();
});
