// Training on from a step of a run, with changed settings or another text.
"use strict";

{
  const at = Charloom.at;
  const form = at("fork-form");
  let parent = "";

  Lab.fork = (name) => {
    const run = Lab.run(name);
    parent = name;
    Charloom.show("fork-title", `Train on from ${name}`);
    Charloom.show("fork-made", "");
    // the best of several networks is kept merged, to be served: it cannot be trained on
    const best = run.best && run.members === 1 ? [new Option("its best", "best")] : [];
    const steps = [...run.checkpoints].reverse().map((step) => new Option(`after ${Charloom.number(step, 0)} updates`, step));
    form.step.replaceChildren(new Option("its newest", ""), ...best, ...steps);
    form.reset();
    form.name.placeholder = `${name}-fork`;
    at("fork").showModal();
  };

  async function start() {
    const body = new FormData();
    for (const name of ["step", "name", "learning_rate"]) if (form[name].value) body.append(name, form[name].value);
    if (form.amount.value) body.append(form.unit.value, form.amount.value);
    for (const file of form.file.files) body.append("file", file);
    at("fork-made").classList.remove("bad");
    Charloom.show("fork-made", "sending …");
    try {
      const run = await Charloom.json(`/runs/${encodeURIComponent(parent)}/fork`, { method: "POST", body });
      at("fork").close();
      Charloom.show("runs-made", [`${run.name} waits for its turn.`, ...run.findings.map((finding) => `${finding.message}.`)].join(" "));
      Lab.now();
    } catch (error) {
      at("fork-made").classList.add("bad");
      Charloom.show("fork-made", error.message);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  at("fork-no").addEventListener("click", () => at("fork").close());
}
