// A text that is streamed from the server.

import { create } from "../dom.js";
import { patiently, post, readEvents, runUrl } from "../http.js";
import { visible } from "../words.js";

// A seed that is drawn here, so that a text that breaks off can be written again.
export const drawnSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

// Begins a text in an element, after a prompt if it is given one; returns the function that appends to it.
export function writeInto(element, prompt) {
	const text = document.createTextNode("");
	if (prompt !== undefined) element.replaceChildren(create("span", { class: "prompt" }, prompt));
	element.append(text);
	element.classList.add("writing");
	element.scrollTop = element.scrollHeight;
	return (piece) => {
		const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
		text.appendData(piece);
		if (follows) element.scrollTop = element.scrollHeight;
	};
}

// Calls `take(choice, text, ended)` for every piece of the texts. Returns the whole answer.
export async function stream(asked, { signal, waiting, take }) {
	const send = () => post("/generate", { ...asked, stream: true }, { signal });
	const response = await patiently(send, waiting, signal);
	for await (const { event, data } of readEvents(response)) {
		if (event === "done") return data;
		if (event === "error") throw Object.assign(new Error(data.error.message), { status: 500, details: [] });
		take(data.choice, data.text, Boolean(data.finish_reason));
	}
	throw Object.assign(new Error("the connection was lost"), { status: 0, details: [] });
}

// Asks the server not to remove the checkpoint run@step as training goes on.
export function keep(model) {
	const [run, step] = model.split("@");
	return post(`${runUrl(run)}/keep`, { step: Number(step) });
}

// Names the characters of a refusal that the network has never seen; "" for any other error.
export function unseen(error) {
	if (error.code !== "unknown_characters") return "";
	const found = [...new Set(error.details.map(({ character }) => `“${visible(character)}”`))];
	return found.slice(0, 6).join(", ") + (found.length > 6 ? " and others" : "");
}
