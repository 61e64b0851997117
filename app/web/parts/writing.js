// Streams texts from the server.

import { create } from "../dom.js";
import { patiently, post, readEvents, runUrl } from "../http.js";
import { parseModel, visible } from "../words.js";

// A random seed, chosen here so that an interrupted text can be generated again.
export const drawnSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

// Starts a text in an element, after a prompt if there is one; returns a function that appends to it.
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

// Calls `take(choice, text, ended)` for every piece of the texts. Returns the complete answer.
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

// Asks the server to keep the checkpoint run@step.
export function keep(model) {
	const [run, step] = parseModel(model);
	return post(`${runUrl(run)}/keep`, { step: Number(step) });
}

// The characters of an error that the model has never seen; "" for any other error.
export function unseen(error) {
	if (error.code !== "unknown_characters") return "";
	const found = [...new Set(error.details.map(({ character }) => `“${visible(character)}”`))];
	return found.slice(0, 6).join(", ") + (found.length > 6 ? " and others" : "");
}
