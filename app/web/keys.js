// The key that requests of this tab carry: asked for when the server refuses one, kept until the tab is closed.
"use strict";

{
  const at = Charloom.at;
  const NAME = "charloom.key";

  // A header holds bytes: those of the key in UTF-8.
  const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

  Charloom.credentials = () => {
    const key = sessionStorage.getItem(NAME);
    return key ? { Authorization: `Bearer ${asBytes(key)}` } : {};
  };

  Charloom.refused = (message) => {
    if (at("key").hidden || at("key-why").textContent !== message) Charloom.show("key-why", message);
    at("key").hidden = false;
  };

  function use(key) {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
    at("key-field").value = "";
    at("key").hidden = true;
    document.dispatchEvent(new Event("key-changed"));
    Lab.now();
  }

  at("key").addEventListener("submit", (event) => {
    event.preventDefault();
    use(at("key-field").value.trim());
  });
  at("key-forget").addEventListener("click", () => use(""));
}
