// Requests to the server, with the key of this tab if there is one.

// The path of the server's root: "" or, behind a proxy, such as "/charloom". Scripts lie at /assets/HASH/.
export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");

const KEY = "charloom.key";

// The loss curve of a run, with about so many points, and the samples of its training.
export const curveOf = (name, points) => getJson(`/loss-curve.json?model=${encodeURIComponent(name)}&points=${points}`);
export const samplesOf = async (name) => (await getJson(`/samples?model=${encodeURIComponent(name)}`)).samples;

// The address of a run, below the server's root.
export const runUrl = (name) => `/runs/${encodeURIComponent(name)}`;

// A header holds bytes: those of the key in UTF-8.
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

export function credentials() {
	const key = sessionStorage.getItem(KEY);
	return key ? { Authorization: `Bearer ${asBytes(key)}` } : {};
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

// The answer, or an Error with `status` (0: no answer), `code`, `details` and `retryAfter` in seconds.
export async function call(url, options = {}) {
	let response;
	try {
		const headers = { Accept: "application/json", ...credentials(), ...options.headers };
		response = await fetch(ROOT + url, { ...options, headers });
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw Object.assign(new Error("the server does not answer"), { status: 0, details: [] });
	}
	if (response.ok) return response;
	const { error } = await response.json().catch(() => ({}));
	const message = error?.message ?? response.statusText;
	// the server wants another key: a page with a field for keys listens
	if ([401, 403].includes(response.status)) document.dispatchEvent(new CustomEvent("key-refused", { detail: message }));
	throw Object.assign(new Error(message), {
		status: response.status,
		code: error?.code,
		details: error?.details ?? [],
		retryAfter: Number(response.headers.get("retry-after")) || 0,
	});
}

export async function getJson(url, options = {}) {
	return (await call(url, options)).json();
}

export function post(url, body, options = {}) {
	return call(url, {
		...options,
		method: "POST",
		headers: { "Content-Type": "application/json", ...options.headers },
		body: JSON.stringify(body),
	});
}

// Sends a request again while the server is busy, a few times; `waiting(words)` says so, and counts down.
export async function patiently(work, waiting, signal) {
	for (let tries = 0; ; tries += 1) {
		try {
			return await work();
		} catch (error) {
			if (error.status !== 429 || tries === 5) throw error;
			for (let seconds = Math.min(Math.ceil(error.retryAfter) || 1, 60); seconds > 0; seconds -= 1) {
				waiting(`The server is busy; trying again in ${seconds} s …`);
				await new Promise((resolve) => window.setTimeout(resolve, 1000));
				signal?.throwIfAborted();
			}
		}
	}
}

// Server-sent events of an answer as they arrive: {event, id, data}, the data parsed.
export async function* readEvents(response) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
		rest = blocks.pop();
		for (const block of blocks) {
			const fields = { event: "message", data: "" };
			for (const line of block.split("\n")) {
				const colon = line.indexOf(":");
				if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
			}
			if (fields.data) yield { ...fields, data: JSON.parse(fields.data) };
		}
	}
}
