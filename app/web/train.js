// The runs of the store.
"use strict";

Lab.onRuns((runs) => {
  Charloom.rows(
    Charloom.at("runs"),
    runs.map((run) => [
      { text: run.name, className: "name" },
      run.cell,
      `${run.layers} × ${run.hidden}`,
      Lab.state(run),
      Charloom.number(run.step, 0),
      Charloom.number(run.smooth_loss),
      Charloom.number(run.validation_loss),
    ]),
  );
});
