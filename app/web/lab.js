// What all sections of the laboratory share: the runs as they stand, which network is chosen, and whether the server answers.
"use strict";

const Lab = {
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

  tell() {
    window.clearTimeout(this._telling);
    this._telling = 0;
    for (const listener of this._listeners) listener(this.runs);
  },

  // Once for all that comes at about the same time.
  tellSoon() {
    this._telling ||= window.setTimeout(() => this.tell(), 50);
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

  isBusy: (run) => run.state === "training" || run.state === "queued",

  state(run) {
    if (run.stale) return "worker silent";
    return run.state === "training" ? `training, ${Math.floor(100 * run.fraction)} %` : run.state;
  },

  async refresh() {
    try {
      this._asked = Date.now();
      const { runs } = await Charloom.json("/runs");
      const back = !this.answers;
      this.runs = runs;
      this.answers = true;
      this._tries = 0;
      this.tell();
      if (back) document.dispatchEvent(new Event("server-back"));
    } catch (error) {
      if (error.status === 0) this.answers = false;
      else Charloom.show("serving", error.message);
    }
    this.banner();
  },

  banner() {
    const silent = this.runs.find((run) => run.stale);
    let text = "";
    if (!this.answers) text = "The server does not answer. The page goes on trying.";
    else if (silent) text = `${silent.name} stands at ${Charloom.number(silent.step, 0)} updates: its worker is silent. Texts are still written.`;
    if (Charloom.at("banner-text").textContent !== text) Charloom.show("banner-text", text);
    Charloom.at("banner").hidden = !text;
    Charloom.at("banner-now").hidden = this.answers;
  },

  // How long until the list of runs is asked for again: what is being trained is followed besides.
  pause() {
    if (this.answers) return this.runs.some(this.isBusy) ? 10000 : 5000;
    this._tries += 1;
    return 500 * Math.min(32, 2 ** this._tries);
  },

  // A request that is sent again while the server is busy, as often as it is worth it; `waiting(seconds)` counts down meanwhile.
  async patiently(work, waiting, signal) {
    for (let tries = 0; ; tries += 1) {
      try {
        return await work();
      } catch (error) {
        if (error.status !== 429 || tries === 5) throw error;
        for (let seconds = Math.min(Math.ceil(error.retryAfter) || 1, 60); seconds > 0; seconds -= 1) {
          waiting(seconds);
          await new Promise((resolve) => window.setTimeout(resolve, 1000));
          signal?.throwIfAborted();
        }
      }
    }
  },

  duration(seconds) {
    if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
    return `${Charloom.number(seconds / 60, seconds < 600 && seconds % 60 ? 1 : 0)} min`;
  },

  cell: (name) => (name === "elman" ? "Elman" : name.toUpperCase()),
  sizes({ cell, hidden, layers, members }) {
    const many = members > 1 ? `${members} networks side by side, each of ` : "";
    return `${many}${layers > 1 ? `${layers} layers of ` : ""}${hidden} ${Lab.cell(cell)} units`;
  },

  // What a person would type for a character.
  visible(character) {
    return { " ": "space", "\n": "line end", "\t": "tab" }[character] ?? character;
  },

  // The network of a form, undefined for the newest.
  network: (form) => form.model.value || undefined,
};

{
  function describe(runs) {
    const run = Lab.serving();
    if (!run) {
      const waiting = runs.find(Lab.isBusy);
      Charloom.show("serving", waiting ? `${waiting.name} is ${waiting.state}; its first checkpoint will be here in a moment.` : "Nothing trained yet: no worker has written a checkpoint.");
      return;
    }
    const loss = run.validation_loss ?? run.smooth_loss;
    const kind = run.validation_loss === null ? "smooth" : "held-out";
    const text = loss === null ? "" : `, ${kind} loss ${Charloom.number(loss, 2)}`;
    Charloom.show("serving", `${run.serving} is being served: ${Lab.sizes(run)}, learned from ${run.corpus} (${Charloom.number(run.characters, 0)} characters); ${Lab.state(run)}${text}.`);
  }

  // "the newest", then of each run its newest, its best and every step that is kept.
  function fill(select, runs) {
    const before = select.value;
    const groups = runs
      .filter((run) => run.newest)
      .map((run) => {
        const group = Charloom.make("optgroup", { label: run.name });
        group.append(new Option(`${run.name}, newest`, run.name));
        if (run.best && run.best.step !== run.newest.step) group.append(new Option(`${run.name}, best (${Charloom.number(run.best.step, 0)})`, `${run.name}@best`));
        for (const step of [...run.checkpoints].reverse()) group.append(new Option(`${run.name} after ${Charloom.number(step, 0)}`, `${run.name}@${step}`));
        return group;
      });
    select.replaceChildren(new Option("the newest", ""), ...groups);
    Lab.choose(select, before);
  }

  // A network that is gone stays chosen, and says so: what is shown was made with it.
  Lab.choose = (select, value) => {
    select.value = value;
    if (value && select.value !== value) {
      select.append(new Option(`${value} (gone)`, value));
      select.value = value;
    }
  };

  Lab.onRuns((runs) => {
    describe(runs);
    for (const select of document.querySelectorAll("[data-networks]")) {
      const key = JSON.stringify(runs.map((run) => [run.name, run.newest && run.newest.step, run.best && run.best.step, run.checkpoints]));
      if (select.dataset.key !== key && document.activeElement !== select) {
        fill(select, runs);
        select.dataset.key = key;
      }
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    Lab.now = Charloom.follow(
      () => Lab.refresh(),
      () => Lab.pause(),
    );
    Charloom.at("banner-now").addEventListener("click", Lab.now);
    window.addEventListener("online", Lab.now);
  });
}
