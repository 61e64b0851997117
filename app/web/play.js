// Writes with a network: streaming, several variants at once, and the means to get exactly this text again.

import { at, create, setText } from "./dom.js";
import { credentials, patiently, post, readEvents } from "./http.js";
import { lookInside } from "./inside.js";
import { chooseNetwork } from "./networks.js";
import { PromptBox } from "./prompt.js";

const form = at("play-form");
const box = new PromptBox(at("play-prompt"), at("play-unknown"), form.model);
let writing = null; // an AbortController while a text is written
let made = null; // the request that gives what is shown again

const NUMBERS = ["length", "temperature", "top_k", "top_p", "seed", "n"];
const NEUTRAL = { top_k: 0, top_p: 1, n: 1 };

const unescapeBreaks = (text) => text.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
const escapeBreaks = (text) => text.replaceAll("\n", "\\n").replaceAll("\t", "\\t");

function request() {
  const asked = { prompt: form.prompt.value };
  if (form.model.value) asked.model = form.model.value;
  for (const name of NUMBERS) {
    const value = form[name].value;
    if (value !== "" && Number(value) !== NEUTRAL[name]) asked[name] = Number(value);
  }
  // drawn here, so that also a text that breaks off can be had again
  if (asked.seed === undefined) asked.seed = crypto.getRandomValues(new Uint32Array(1))[0];
  if (form.stop.value) asked.stop = unescapeBreaks(form.stop.value);
  return asked;
}

function columns(asked) {
  const texts = Array.from({ length: asked.n ?? 1 }, (_, index) => {
    const prompt = create("span", { class: "prompt" }, asked.prompt);
    const written = document.createTextNode("");
    const text = create(
      "pre",
      { class: "text writing", tabindex: "0", "aria-label": `Text ${index + 1}` },
      prompt,
      written,
    );
    return { element: text, written };
  });
  at("play-texts").replaceChildren(...texts.map((text) => text.element));
  return texts;
}

async function write(asked) {
  if (writing) writing.abort();
  const mine = new AbortController();
  writing = mine;
  const texts = columns(asked);
  begin();
  try {
    const send = () => post("/generate", { ...asked, stream: true }, { signal: mine.signal });
    const response = await patiently(
      send,
      (seconds) => setText("play-made", `The server is busy; trying again in ${seconds} s …`),
      mine.signal,
    );
    setText("play-made", "writing …");
    const answer = await receive(response, texts);
    made = { ...asked, model: answer.model, seed: answer.seed };
    const stopped = answer.finish_reason === "stop" ? ", ended by the stop string" : "";
    setText("play-made", `${answer.model}, seed ${answer.seed}, ${answer.length} characters${stopped}`);
  } catch (error) {
    if (mine === writing) failed(error, asked, texts);
  } finally {
    for (const text of texts) text.element.classList.remove("writing");
    if (mine === writing) end();
  }
}

async function receive(response, texts) {
  for await (const { event, data } of readEvents(response)) {
    if (event === "done") return data;
    if (event === "error") throw Object.assign(new Error(data.error.message), { status: 500, details: [] });
    const { element, written } = texts[data.choice];
    const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
    written.appendData(data.text);
    if (follows) element.scrollTop = element.scrollHeight;
    if (data.finish_reason) element.classList.remove("writing");
  }
  throw Object.assign(new Error("the connection was lost"), { status: 0, details: [] });
}

function failed(error, asked, texts) {
  const count = Math.max(...texts.map((text) => text.written.length));
  made = null;
  if (error.name === "AbortError") setText("play-made", `stopped after ${count} characters; seed ${asked.seed}`);
  else if (box.refused(error)) {
    setText("play-made", "");
    at("play-texts").replaceChildren();
    at("play-empty").hidden = false;
    at("play-prompt").focus();
  } else if (error.status === 404)
    setText("play-made", `${error.message} It may have been deleted meanwhile: choose another network.`);
  else
    setText(
      "play-made",
      count
        ? `${error.message}, after ${count} characters. Seed ${asked.seed} gives the same text again.`
        : error.message,
    );
}

function begin() {
  at("play-empty").hidden = true;
  at("play-again").hidden = true;
  at("play-stop").hidden = false;
  at("play-write").disabled = true;
  setText("play-copied", "");
  setText("play-made", "reading the prompt …");
}

function end() {
  writing = null;
  at("play-stop").hidden = true;
  at("play-write").disabled = false;
  at("play-again").hidden = made === null;
  if (made) setText("play-code", [again.link(), again.curl(), again.python()].join("\n\n"));
}

// Three ways to the very same text.
const again = {
  link: () => `${location.origin}/#play?${new URLSearchParams(made)}`,
  curl: () => {
    const key = credentials().Authorization ? ' -H "Authorization: Bearer $CHARLOOM_KEY"' : "";
    const body = JSON.stringify(made).replaceAll("'", "'\\''");
    return `curl -s ${location.origin}/generate${key} -H 'Content-Type: application/json' \\\n` + `  -d '${body}'`;
  },
  python: () => {
    const fields = Object.entries(made).map(
      ([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},`,
    );
    return [
      "import httpx",
      "",
      "request = {",
      ...fields,
      "}",
      `answer = httpx.post("${location.origin}/generate", json=request, timeout=60).json()`,
      'print(answer["text"])',
    ].join("\n");
  },
};

async function copy(kind) {
  try {
    await navigator.clipboard.writeText(again[kind]());
    setText("play-copied", "Copied.");
  } catch {
    // without a secure context there is no clipboard: the text is shown, and chosen
    setText("play-copied", "This browser does not let the page copy: here it is, to be copied by hand.");
    setText("play-code", again[kind]());
    at("play-code").closest("details").open = true;
    getSelection().selectAllChildren(at("play-code"));
  }
}

// A link that says what to write: fills in the form and writes.
function follow() {
  const [section, query] = location.hash.slice(1).split(/\?(.*)/s);
  if (section !== "play" || !query) return;
  const asked = Object.fromEntries(new URLSearchParams(query));
  box.set(asked.prompt ?? "");
  for (const name of NUMBERS) form[name].value = asked[name] ?? NEUTRAL[name] ?? "";
  if (!form.length.value) form.length.value = 400;
  if (form.top_k.value === "0") form.top_k.value = "";
  form.stop.value = escapeBreaks(asked.stop ?? "");
  chooseNetwork(form.model, asked.model ?? "");
  values();
  at("play").scrollIntoView();
  write(request());
}

function values() {
  setText("play-temperature-value", Number(form.temperature.value).toFixed(2));
  setText("play-top-p-value", Number(form.top_p.value).toFixed(2));
}

form.addEventListener("input", values);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  write(request());
});
at("play-prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
at("play-stop").addEventListener("click", () => writing?.abort());
for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", () => copy(button.dataset.copy));
at("play-inside").addEventListener("click", () =>
  lookInside(at("play-texts").querySelector(".text").textContent, made.model),
);
window.addEventListener("hashchange", follow);
values();
follow();
