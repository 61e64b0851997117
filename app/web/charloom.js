// What the pages share. Text from the network enters a page as text, never as markup.
"use strict";

const Charloom = {
  at(id) {
    return document.getElementById(id);
  },

  // The answer, or an Error with `status` (0: nobody answered), `code`, `details` and `retryAfter` in seconds.
  async ask(url, options = {}) {
    let response;
    try {
      response = await fetch(url, { ...options, headers: { Accept: "application/json", ...this.credentials(), ...options.headers } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw Object.assign(new Error("the server does not answer"), { status: 0, details: [] });
    }
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({}));
    if (response.status === 401 || response.status === 403) this.refused(error ? error.message : response.statusText);
    throw Object.assign(new Error(error ? error.message : response.statusText), {
      status: response.status,
      code: error ? error.code : "",
      details: error ? error.details : [],
      retryAfter: Number(response.headers.get("retry-after")) || 0,
    });
  },

  // What requests carry, and what to do when that is not enough: a page with a field for keys puts its own here.
  credentials: () => ({}),
  refused() {},

  async json(url, options = {}) {
    return (await this.ask(url, options)).json();
  },

  post(url, body, options = {}) {
    return this.ask(url, {
      ...options,
      method: "POST",
      headers: { "Content-Type": "application/json", ...options.headers },
      body: JSON.stringify(body),
    });
  },

  // Server-sent events of an answer, as they come: {event, id, data}, the data parsed.
  async *events(response) {
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
  },

  // An element with its text, its attributes, and what stands in it.
  make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value === null || value === undefined) continue;
      if (name === "onclick") element.addEventListener("click", value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  },

  show(id, text) {
    document.getElementById(id).textContent = text;
  },

  number(value, digits = 3) {
    return value === null || value === undefined
      ? "–"
      : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  },

  rows(body, rows) {
    body.replaceChildren(
      ...rows.map((cells) => {
        const row = document.createElement("tr");
        for (const cell of cells) {
          const { text, className } = typeof cell === "object" ? cell : { text: cell };
          const element = document.createElement("td");
          element.textContent = text;
          if (className) element.className = className;
          row.append(element);
        }
        return row;
      }),
    );
  },

  theme: window.matchMedia("(prefers-color-scheme: dark)"),

  // As wide as it will be shown, and in the colours of the page. Replaces a picture once the new one is here, so that the page never flickers.
  picture(image, url) {
    const next = new Image();
    next.onload = () => {
      for (const source of image.parentElement.querySelectorAll("source")) source.remove();
      image.src = next.src;
    };
    const shape = image.parentElement.clientWidth < 600 ? "narrow" : "wide";
    next.src = `${url}&shape=${shape}&theme=${this.theme.matches ? "dark" : "light"}`;
  },

  // Calls `work` now, and again `pause()` milliseconds after it has ended, while the page is looked at. Gives what calls it at once.
  follow(work, pause) {
    let timer;
    const turn = async () => {
      window.clearTimeout(timer);
      if (!document.hidden) await work();
      timer = window.setTimeout(turn, pause());
    };
    document.addEventListener("visibilitychange", () => document.hidden || turn());
    turn();
    return turn;
  },
};
