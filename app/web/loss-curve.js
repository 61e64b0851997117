// Follows one run's training: numbers and picture change as points are added.
"use strict";

const page = document.querySelector("[data-run]");
const image = document.getElementById("picture");
let shown = null;
let training = true;

async function update() {
  const run = encodeURIComponent(page.dataset.run);
  let curve;
  try {
    curve = await Charloom.json(`/loss-curve.json?model=${run}&points=200`);
  } catch (error) {
    Charloom.show("state", `not up to date: ${error.message}`);
    return;
  }
  training = curve.state === "training" || curve.state === "queued";
  const key = curve.version + Charloom.theme.matches;
  if (key === shown) return;
  shown = key;
  Charloom.picture(image, `/loss-curve.svg?model=${run}&version=${encodeURIComponent(curve.version)}`);
  describe(curve);
}

function describe(curve) {
  const known = (name) => curve.points.map((point) => point[name]).filter((value) => value !== null);
  const last = (name) => known(name).at(-1);
  const summed = last("summed_smooth_loss");
  Charloom.show("state", curve.state);
  Charloom.show("step", Charloom.number(curve.step, 0));
  Charloom.show("smooth", Charloom.number(last("smooth_loss")));
  Charloom.show("summed", Charloom.number(summed, 2));
  document.getElementById("summed").parentElement.hidden = summed === undefined;
  Charloom.show("held-out", Charloom.number(last("validation_loss")));
  document.getElementById("held-out").parentElement.hidden = last("validation_loss") === undefined;
  Charloom.show("best", curve.best ? Charloom.number(curve.best[1]) : "–");
  for (const name of ["uniform", "unigram", "5-gram"]) {
    Charloom.show(name, Charloom.number(curve.baselines[name], 2));
  }
  Charloom.show("warnings", curve.warnings.join(". "));
  document.getElementById("warnings").hidden = curve.warnings.length === 0;
  const measured = curve.points.filter((point) => point.validation_loss !== null);
  Charloom.rows(
    document.getElementById("points"),
    spread(measured.length > 1 ? measured : curve.points, 20)
      .map((point) => [
        Charloom.number(point.step, 0),
        Charloom.number(point.seconds, 1),
        Charloom.number(point.smooth_loss),
        Charloom.number(point.validation_loss),
      ])
      .reverse(),
  );
}

// At most `count` of the items, evenly spread from the first to the last.
function spread(items, count) {
  if (items.length <= count) return items;
  return Array.from({ length: count }, (_, i) => items[Math.round((i * (items.length - 1)) / (count - 1))]);
}

Charloom.theme.addEventListener("change", update);
Charloom.follow(update, () => (training ? 1500 : 10000));
