// The first page: what is running, its newest sample and curve, and a box to write with it.
"use strict";

const form = document.getElementById("generate");
let shown = null;
let busy = true;

async function update() {
  try {
    const { models } = await Charloom.json("/models");
    const serving = models.find((run) => run.serving);
    busy = models.some((run) => run.state === "training" || run.state === "queued");
    describe(serving);
    list(models);
    if (serving) await follow(serving);
  } catch (error) {
    Charloom.show("serving", `The server does not answer: ${error.message}`);
  }
}

function describe(run) {
  if (!run) {
    Charloom.show("serving", "Nothing trained yet. A worker has to write the first checkpoint.");
    return;
  }
  const state = run.stale ? "its worker is silent" : run.state;
  const left = run.state === "training" ? `, ${Math.floor(100 * run.fraction)} % done` : "";
  const loss = run.validation_loss ?? run.smooth_loss;
  const kind = run.validation_loss === null ? "smooth" : "held-out";
  const text = loss === null ? "" : `, ${kind} loss ${Charloom.number(loss)} nats per character`;
  Charloom.show("serving", `Serving ${run.serving}: ${state}${left}${text}.`);
}

function list(models) {
  Charloom.rows(
    document.getElementById("runs"),
    models.map((run) => [
      { text: run.name, className: "name" },
      run.cell,
      `${run.layers} × ${run.hidden}`,
      run.stale ? "silent" : run.state,
      Charloom.number(run.step, 0),
      Charloom.number(run.smooth_loss),
      Charloom.number(run.validation_loss),
    ]),
  );
}

async function follow(run) {
  const key = run.serving + run.state + Charloom.theme.matches;
  if (key === shown) return;
  shown = key;
  const name = encodeURIComponent(run.name);
  Charloom.picture(document.getElementById("picture"), `/loss-curve.svg?model=${name}&version=${encodeURIComponent(key)}`);
  const { samples } = await Charloom.json(`/samples?model=${name}`);
  const sample = samples.at(-1);
  document.getElementById("sample-card").hidden = !sample;
  if (sample) {
    Charloom.show("sample-step", `${run.name} after ${Charloom.number(sample.step, 0)} updates`);
    Charloom.show("sample", sample.text);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const request = { prompt: form.prompt.value };
  for (const name of ["length", "temperature", "seed"]) {
    if (form[name].value !== "") request[name] = Number(form[name].value);
  }
  button.disabled = true;
  try {
    const answer = await Charloom.json("/generate", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
    Charloom.show("prompt-shown", answer.prompt);
    Charloom.show("written", answer.text);
    Charloom.show("made", `${answer.model}, seed ${answer.seed}, ${answer.length} characters`);
  } catch (error) {
    Charloom.show("prompt-shown", "");
    Charloom.show("written", error.message);
    Charloom.show("made", "");
  } finally {
    button.disabled = false;
    document.getElementById("output").hidden = false;
  }
});

Charloom.theme.addEventListener("change", update);
Charloom.follow(update, () => (busy ? 1500 : 10000));
