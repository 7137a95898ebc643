// Commands on adapter versions, to copy. The page itself changes nothing.

import { make, quoted, setOptions, setText } from "./dom.js";
import { languageName } from "./format.js";
import { t } from "./messages.js";

const at = (id) => document.getElementById(id);
const language = at("commands-language");
const version = at("commands-version");
const lines = new Map();
let status = {};

for (const choice of [language, version]) choice.addEventListener("change", draw);

export function showCommands(given) {
  status = given;
  const codes = Object.keys(given.languages ?? {});
  at("commands-choice").hidden = at("commands").hidden = codes.length === 0;
  if (!codes.length) return;
  setOptions(language, codes.map((code) => [code, `${languageName(code, given.languages[code].name)} (${code})`]), codes[0]);
  draw();
}

function draw() {
  const found = status.languages?.[language.value];
  if (!found) return;
  const versions = (found.versions ?? []).filter((each) => /^v\d+$/.test(each));
  setOptions(version, versions.map((each) => [each, each === found.live ? t("{version} (live)", { version: each }) : each]), versions.at(-1) ?? "");
  version.disabled = versions.length === 0;
  const [run, code] = [quoted(status.run ?? "RUN"), language.value];
  const free = found.pinned === null || found.pinned === undefined;
  show("promote", t("Promote"), free && versions.length ? `compass-ray adapters promote ${run} ${code} ${version.value}` : "");
  show("rollback", t("Roll back"), free && found.previous ? `compass-ray adapters rollback ${run} ${code}` : "");
  show("pin", free ? t("Pin") : t("Unpin"), found.live ? `compass-ray adapters ${free ? "pin" : "unpin"} ${run} ${code}` : "");
}

function show(name, heading, command) {
  if (!lines.has(name)) lines.set(name, added());
  const { item, title, code, button } = lines.get(name);
  item.hidden = !command;
  setText(title, heading);
  setText(code, command);
  button.setAttribute("aria-label", t("Copy: {command}", { command: heading }));
}

function added() {
  const [title, code, button] = [make("span", { class: "name" }), make("code", { dir: "ltr" }), make("button", { type: "button" }, t("Copy"))];
  button.addEventListener("click", () => copy(code, button));
  const item = make("li", {}, title, code, button);
  at("commands").append(item);
  return { item, title, code, button };
}

// Without the clipboard, which needs HTTPS or localhost, the command is selected instead.
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    setText(button, t("Copied"));
  } catch {
    getSelection().selectAllChildren(code);
    setText(button, t("Selected"));
  }
  setTimeout(() => setText(button, t("Copy")), 2000);
}
