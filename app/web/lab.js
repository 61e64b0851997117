// What all sections of the laboratory share: the runs as they stand, which network is chosen, and whether the server answers.
"use strict";

const Lab = {
  runs: [],
  answers: true,
  _listeners: [],

  // Calls `listener(runs)` now and whenever the runs have changed, or the server is back.
  onRuns(listener) {
    this._listeners.push(listener);
    if (this.runs.length) listener(this.runs);
  },

  tell() {
    for (const listener of this._listeners) listener(this.runs);
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
      const { models } = await Charloom.json("/models");
      const text = JSON.stringify(models);
      const changed = text !== this._text || !this.answers;
      this._text = text;
      this.runs = models;
      this.answers = true;
      if (changed) this.tell();
    } catch (error) {
      if (error.status === 0) this.answers = false;
      else Charloom.show("serving", error.message);
    }
    this.banner();
  },

  banner() {
    const silent = this.runs.find((run) => run.stale);
    let text = "";
    if (!this.answers) text = "The server does not answer. Trying again …";
    else if (silent) text = `${silent.name} stands at ${Charloom.number(silent.step, 0)} updates: its worker is silent. Texts are still written.`;
    const banner = Charloom.at("banner");
    if (banner.textContent !== text) banner.textContent = text;
    banner.hidden = !text;
  },

  // A request that is sent again while the server is busy, as often as it is worth it; `waiting(seconds)` says so meanwhile.
  async patiently(work, waiting) {
    for (let tries = 0; ; tries += 1) {
      try {
        return await work();
      } catch (error) {
        if (error.status !== 429 || tries === 5) throw error;
        const seconds = Math.min(error.retryAfter || 1, 30);
        waiting(seconds);
        await new Promise((resolve) => window.setTimeout(resolve, 1000 * seconds));
      }
    }
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
    Charloom.show("serving", `${run.serving} is being served: ${run.cell}, ${run.layers} × ${run.hidden} units, learned from ${run.corpus} (${Charloom.number(run.characters, 0)} characters); ${Lab.state(run)}${text}.`);
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
    Charloom.follow(
      () => Lab.refresh(),
      () => (!Lab.answers ? 1000 : Lab.runs.some(Lab.isBusy) ? 1500 : 6000),
    );
  });
}
