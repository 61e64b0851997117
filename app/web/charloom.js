// What the pages share. Text from the network enters a page as text, never as markup.
"use strict";

const Charloom = {
  async json(url, options = {}) {
    const response = await fetch(url, { ...options, headers: { Accept: "application/json", ...options.headers } });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error ? body.error.message : response.statusText);
    return body;
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
    const shape = image.closest("figure").clientWidth < 600 ? "narrow" : "wide";
    next.src = `${url}&shape=${shape}&theme=${this.theme.matches ? "dark" : "light"}`;
  },

  // Calls `work` now, and again `pause()` milliseconds after it has ended, while the page is looked at.
  follow(work, pause) {
    let timer;
    const turn = async () => {
      window.clearTimeout(timer);
      if (!document.hidden) await work();
      timer = window.setTimeout(turn, pause());
    };
    document.addEventListener("visibilitychange", () => document.hidden || turn());
    turn();
  },
};
