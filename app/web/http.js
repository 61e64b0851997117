// Requests to the server, with the key of this tab if there is one.

// The root path of the server: "" or, behind a proxy, such as "/charloom". Scripts are at /assets/HASH/.
export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");

const KEY = "charloom.key";

// The loss curve of a run, with about `points` points, and its samples.
export const curveOf = (name, points) => getJson(`/loss-curve.json?model=${encodeURIComponent(name)}&points=${points}`);
export const samplesOf = async (name) => (await getJson(`/samples?model=${encodeURIComponent(name)}`)).samples;

// The path of a run below the root.
export const runUrl = (name) => `/runs/${encodeURIComponent(name)}`;

// A header value must be a byte string: the key in UTF-8.
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

export function credentials() {
	const key = sessionStorage.getItem(KEY);
	return key ? { Authorization: `Bearer ${asBytes(key)}` } : {};
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

// The response, or an Error with `status` (0: no answer), `code`, `details` and `retryAfter` in seconds.
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
	// the page asks for a key
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

// Retries a request a few times while the server is busy; `waiting(words)` shows a countdown.
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

// The server-sent events of a response: {event, id, data}, with parsed data.
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
