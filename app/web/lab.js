// The runs of the store as they are now, and whether the server answers.

import { at, repeat, setText } from "./dom.js";
import { getJson } from "./http.js";
import { heldOut, number, sizes, stateOf } from "./words.js";

export const isBusy = (run) => run.state === "training" || run.state === "queued";

export const lab = {
  runs: [],
  answers: true,
  now() {},
  _tries: 0,
  _listeners: [],

  // Calls `listener(runs)` now and whenever the runs have changed, or the server is back.
  onRuns(listener) {
    this._listeners.push(listener);
    if (this.runs.length) listener(this.runs);
  },

  notify() {
    window.clearTimeout(this._notifying);
    this._notifying = 0;
    for (const listener of this._listeners) listener(this.runs);
  },

  // Once for everything that arrives at about the same time.
  notifySoon() {
    this._notifying ||= window.setTimeout(() => this.notify(), 50);
  },

  // The list again, at most every two seconds.
  refreshSoon() {
    this._refreshing ||= window.setTimeout(
      () => {
        this._refreshing = 0;
        this.now();
      },
      Math.max(0, (this._asked ?? 0) + 2000 - Date.now()),
    );
  },

  run(name) {
    return this.runs.find((run) => run.name === name);
  },

  serving() {
    return this.runs.find((run) => run.serving);
  },

  async refresh() {
    try {
      this._asked = Date.now();
      const { runs } = await getJson("/runs");
      const back = !this.answers;
      this.runs = runs;
      this.answers = true;
      this._tries = 0;
      this.notify();
      if (back) document.dispatchEvent(new Event("server-back"));
    } catch (error) {
      if (error.status === 0) this.answers = false;
      else setText("serving", error.message);
    }
    this.banner();
  },

  banner() {
    const silent = this.runs.find((run) => run.stale);
    let text = "";
    if (!this.answers) text = "The server does not answer. The page keeps trying.";
    else if (silent) {
      const step = number(silent.step, 0);
      text = `${silent.name} has stopped at ${step} updates: its worker is silent. Texts are still written.`;
    }
    if (at("banner-text").textContent !== text) setText("banner-text", text);
    at("banner").hidden = !text;
    at("banner-now").hidden = this.answers;
  },

  // Milliseconds until the list of runs is asked for again; runs in training are also followed by events.
  pause() {
    if (this.answers) return this.runs.some(isBusy) ? 10000 : 5000;
    this._tries += 1;
    return 500 * Math.min(32, 2 ** this._tries);
  },

  start() {
    this.now = repeat(
      () => this.refresh(),
      () => this.pause(),
    );
    at("banner-now").addEventListener("click", this.now);
    window.addEventListener("online", this.now);
  },
};

lab.onRuns((runs) => {
  const run = lab.serving();
  if (!run) {
    const waiting = runs.find(isBusy);
    const first = `${waiting?.name} is ${waiting?.state}; its first checkpoint will be here in a moment.`;
    setText("serving", waiting ? first : "Nothing trained yet: no worker has written a checkpoint.");
    return;
  }
  const smooth = run.smooth_loss === null ? "" : `, smooth loss ${number(run.smooth_loss, 2)}`;
  const text = run.validation_loss === null ? smooth : `, held-out loss ${heldOut(run, 2)}`;
  const source = `${run.corpus} (${number(run.characters, 0)} characters)`;
  setText("serving", `${run.serving} is being served: ${sizes(run)}, learned from ${source}; ${stateOf(run)}${text}.`);
});
