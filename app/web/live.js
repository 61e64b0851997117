// The curves of one run or several, as they grow.
"use strict";

{
  const at = Charloom.at;
  const curves = new Map();
  let chosen = null; // names, once a person has chosen
  let listed = "";
  const chart = new LossChart(at("live-chart"), (text) => Charloom.show("live-read", text));

  const shown = () => chosen ?? [(Lab.runs.find((run) => run.state === "training") ?? Lab.serving() ?? Lab.runs.find((run) => run.step > 0))?.name].filter(Boolean);
  const options = () => ({ x: at("live-x").value, logX: at("live-log-x").checked, logY: at("live-log-y").checked });

  function list(runs) {
    const key = JSON.stringify([runs.map((run) => run.name), shown()]);
    if (key === listed) return;
    listed = key;
    const boxes = runs.map((run) => {
      const box = Charloom.make("input", { type: "checkbox", value: run.name });
      box.checked = shown().includes(run.name);
      return Charloom.make("label", {}, box, Charloom.make("span", { class: `run${runs.indexOf(run) % 6}` }, run.name));
    });
    const legend = at("live-runs").querySelector("legend");
    at("live-runs").replaceChildren(legend, ...boxes);
  }

  async function load(run) {
    const name = encodeURIComponent(run.name);
    const [curve, { samples }] = await Promise.all([
      Charloom.json(`/loss-curve.json?model=${name}&points=800`),
      run.samples ? Charloom.json(`/samples?model=${name}`) : { samples: [] },
    ]);
    curve.samples = [...new Set(samples.map((sample) => sample.step))];
    curve.colour = Lab.runs.indexOf(Lab.run(run.name)) % 6;
    curve.key = keyOf(run);
    curves.set(run.name, curve);
  }

  const keyOf = (run) => `${run.state}-${run.step}-${run.smooth_loss}-${run.samples}-${run.checkpoints.length}`;

  async function update(runs) {
    if (chosen) chosen = chosen.filter((name) => Lab.run(name));
    if (chosen && !chosen.length) chosen = null;
    list(runs);
    const wanted = shown().map((name) => Lab.run(name)).filter((run) => run && run.step > 0);
    describe(Lab.run(shown()[0]));
    try {
      await Promise.all(wanted.filter((run) => curves.get(run.name)?.key !== keyOf(run)).map(load));
    } catch {
      return; // the runs are asked for again in a moment
    }
    draw();
  }

  function draw() {
    const known = shown().map((name) => curves.get(name)).filter((curve) => curve && curve.points.length);
    at("live-empty").hidden = known.length > 0;
    at("live-shown").hidden = known.length === 0;
    if (!known.length) return;
    chart.show(known, options());
    at("live-picture").href = `/loss-curve?model=${encodeURIComponent(known[0].run)}`;
    const warnings = known.flatMap((curve) => curve.warnings.map((warning) => `${curve.run}: ${warning}`));
    Charloom.show("live-warnings", warnings.join(". "));
    at("live-warnings").hidden = warnings.length === 0;
  }

  function describe(run) {
    at("live-numbers").hidden = !run;
    at("live-progress").hidden = !run || run.state !== "training";
    if (!run) return;
    const training = run.state === "training" && !run.stale;
    Charloom.show("live-run", run.name);
    Charloom.show("live-state", run.stale ? "worker silent" : run.state);
    Charloom.show("live-step", Charloom.number(run.step, 0) + (run.steps ? ` of ${Charloom.number(run.steps, 0)}` : ""));
    Charloom.show("live-smooth", Charloom.number(run.smooth_loss));
    Charloom.show("live-held-out", Charloom.number(run.validation_loss));
    Charloom.show("live-speed", run.characters_per_second ? Charloom.number(run.characters_per_second, 0) : "–");
    const left = run.expected_end ? Math.max(0, run.expected_end - Date.now() / 1000) : null;
    Charloom.show("live-left", training && left !== null ? duration(left) : "–");
    at("live-left").parentElement.hidden = !training;
    at("live-progress").value = run.fraction;
  }

  const duration = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

  at("live-runs").addEventListener("change", () => {
    chosen = [...at("live-runs").querySelectorAll("input:checked")].map((box) => box.value);
    update(Lab.runs);
  });
  for (const id of ["live-x", "live-log-x", "live-log-y"]) at(id).addEventListener("change", draw);
  at("zoom-in").addEventListener("click", () => chart.zoomBy(0.5));
  at("zoom-out").addEventListener("click", () => chart.zoomBy(2));
  at("zoom-all").addEventListener("click", () => chart.zoom(null));
  Charloom.theme.addEventListener("change", draw);
  Lab.onRuns(update);
}
