// A text that someone brings: looked at first, then trained on.

import { at, create, setText } from "./dom.js";
import { getJson, patiently } from "./http.js";
import { isBusy, lab } from "./lab.js";
import { showNext } from "./live.js";
import { duration, number, sizes } from "./words.js";

const form = at("train-form");
const SHOWN = 300; // characters of its beginning
const OPTIONS = ["name", "preset", "cell", "hidden", "layers", "learning_rate", "seed", "encoding"];
let files = [];
let looking = null; // an AbortController while a text is looked at
let soon = 0;

function body() {
  const data = new FormData();
  for (const name of OPTIONS) if (form[name].value) data.append(name, form[name].value);
  if (form.amount.value) data.append(form.unit.value, form.amount.value);
  if (form.text.value) data.append("file", new Blob([form.text.value], { type: "text/plain" }), "pasted.txt");
  else for (const file of files) data.append("file", file);
  return data;
}

const brought = () => files.length > 0 || form.text.value !== "";

// A text from a file takes the place of a pasted one, and the other way round.
function take(list) {
  files = [...list];
  if (!files.length) return;
  form.text.value = "";
  setText("train-chosen", files.length === 1 ? files[0].name : `${files.length} files`);
  look();
}

async function look() {
  looking?.abort();
  if (!brought() || !form.checkValidity()) return;
  const mine = new AbortController();
  looking = mine;
  setText("train-made", "looking at the text …");
  at("train-empty").hidden = true;
  try {
    const found = await getJson("/runs/check", { method: "POST", body: body(), signal: mine.signal });
    if (mine !== looking) return;
    describe(found);
    setText("train-made", "");
    await begin();
  } catch (error) {
    if (mine === looking && error.name !== "AbortError") refused(error);
  }
}

function describe(found) {
  setText(
    "train-summary",
    `${found.corpus}: ${number(found.characters, 0)} characters, ${found.distinct_characters} different ones. ` +
      `${sizes(found)}, about ${duration(found.expected_seconds)}, once it is its turn.`,
  );
  list(found.findings);
  at("train-found").hidden = false;
  at("train-start").disabled = false;
  form.name.placeholder = found.name;
}

function list(findings) {
  at("train-findings").replaceChildren(
    ...findings.map((finding) =>
      create("li", { class: finding.level }, `${finding.file ? `${finding.file}: ` : ""}${finding.message}`),
    ),
  );
  at("train-fine").hidden = findings.length > 0;
}

// Shown as a person would read it; the server decodes the text itself.
async function begin() {
  const blob = form.text.value ? new Blob([form.text.value]) : files[0];
  const shown = /\.zip$/i.test(blob.name ?? "") ? "" : await blob.slice(0, 4 * SHOWN).text();
  setText("train-beginning", [...shown].slice(0, SHOWN).join(""));
  at("train-beginning").hidden = !shown;
}

function refused(error) {
  const findings = error.details.filter((detail) => detail.level);
  at("train-found").hidden = findings.length === 0;
  at("train-beginning").hidden = true;
  setText("train-summary", findings.length ? "Nothing can be trained on this text:" : "");
  list(findings);
  at("train-fine").hidden = true;
  at("train-start").disabled = findings.length > 0;
  setText("train-made", findings.length ? "" : error.message);
}

async function start() {
  if (!brought()) {
    setText("train-made", "Choose, drop or paste a text first.");
    return;
  }
  window.clearTimeout(soon);
  looking?.abort();
  looking = null;
  at("train-start").disabled = true;
  setText("train-made", "sending …");
  try {
    const send = () => getJson("/runs", { method: "POST", body: body() });
    const run = await patiently(send, (seconds) =>
      setText("train-made", `The server is busy; trying again in ${seconds} s …`),
    );
    list(run.findings);
    await lab.refresh();
    const ahead = lab.runs.filter((other) => other.name !== run.name && isBusy(other)).length;
    const others = ahead === 1 ? "another run" : `${ahead} others`;
    const turn = ahead ? `waits for ${others}, then trains` : "trains";
    setText(
      "train-made",
      `${run.name} ${turn} for some ${duration(run.expected_seconds)}. ` +
        "Texts can be asked of it as soon as it has begun.",
    );
    if (!ahead) showNext(run.name);
  } catch (error) {
    refused(error);
  } finally {
    at("train-start").disabled = false;
  }
}

function lookSoon() {
  window.clearTimeout(soon);
  soon = window.setTimeout(look, 400);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
form.addEventListener("input", (event) => {
  if (event.target === form.text) {
    files = [];
    setText("train-chosen", "Drop a text here, or choose one");
  }
  if (event.target.type !== "file" && event.target !== form.name) lookSoon();
});
at("train-file").addEventListener("change", () => take(at("train-file").files));

// A file may be dropped anywhere: missing the field must not make the browser leave the page for it.
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("train-drop").classList.add("over");
});
for (const name of ["dragleave", "drop"])
  window.addEventListener(name, () => at("train-drop").classList.remove("over"));
window.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  at("train").scrollIntoView();
  take(event.dataTransfer.files);
});
// a key that was given lets the text be looked at
document.addEventListener("key-changed", look);
