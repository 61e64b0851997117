// The fields of forms that choose a network: a run's newest, its best, or one of its steps.

import { create } from "./dom.js";
import { lab } from "./lab.js";
import { number } from "./words.js";

// The network of a form, undefined for the newest.
export const networkOf = (form) => form.model.value || undefined;

// A network that was deleted stays chosen, and says so: what is shown was made with it.
export function chooseNetwork(select, value) {
  select.value = value;
  if (value && select.value !== value) {
    select.append(new Option(`${value} (gone)`, value));
    select.value = value;
  }
}

function fill(select, runs) {
  const before = select.value;
  const groups = runs
    .filter((run) => run.newest)
    .map((run) => {
      const group = create("optgroup", { label: run.name });
      group.append(new Option(`${run.name}, newest`, run.name));
      if (run.best && run.best.step !== run.newest.step) {
        group.append(new Option(`${run.name}, best (${number(run.best.step, 0)})`, `${run.name}@best`));
      }
      for (const step of [...run.checkpoints].reverse()) {
        group.append(new Option(`${run.name} after ${number(step, 0)}`, `${run.name}@${step}`));
      }
      return group;
    });
  select.replaceChildren(new Option("the newest", ""), ...groups);
  chooseNetwork(select, before);
}

lab.onRuns((runs) => {
  const key = JSON.stringify(runs.map((run) => [run.name, run.newest?.step, run.best?.step, run.checkpoints]));
  for (const select of document.querySelectorAll("[data-networks]")) {
    if (select.dataset.key === key || document.activeElement === select) continue;
    fill(select, runs);
    select.dataset.key = key;
  }
});
