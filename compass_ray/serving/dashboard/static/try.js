// Sends a prompt to the endpoint and shows the reply with its route: adapter, language and reason.

import { Numbers, setOptions, setText } from "./dom.js";
import { languageName, milliseconds, number, percent, text } from "./format.js";
import { t } from "./messages.js";

const TIMEOUT = 120000;
const at = (id) => document.getElementById(id);
const [prompt, model, send, output, reply] = ["try-prompt", "try-model", "try-send", "try-output", "try-reply"].map(at);
const route = new Numbers(at("try-route"));
let names = {};

send.addEventListener("click", ask);
prompt.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(); });

export function showModels({ languages = {} }) {
  names = Object.fromEntries(Object.entries(languages).map(([code, { name }]) => [code, `${languageName(code, name)} (${code})`]));
  setOptions(model, [["auto", t("automatic, by the language of the prompt")], ...Object.entries(names), ["base", t("base model")]], "auto");
}

async function ask() {
  const content = prompt.value.trim();
  if (!content || send.disabled) return;
  send.disabled = true;
  show(t("Waiting for the reply…"), "note");
  const start = performance.now();
  try {
    const body = await request({ model: model.value, messages: [{ role: "user", content }] });
    show(body.choices[0].message.content, "reply");
    showRoute(body, performance.now() - start);
  } catch (error) {
    show(t("No reply: {reason}", { reason: error.message }), "failed");
  } finally {
    send.disabled = false;
  }
}

// The browser adds the API key that it asked for when the page was opened.
async function request(body) {
  const response = await fetch("v1/chat/completions", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT),
  }).catch((error) => { throw new Error(error.name === "TimeoutError" ? t("no response for two minutes") : t("the endpoint cannot be reached")); });
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(found.error?.message ?? t("the endpoint returned {status}", { status: response.status }));
  return found;
}

function show(words, kind) {
  output.hidden = false;
  at("try-route").hidden = kind !== "reply";
  reply.className = kind;
  setText(reply, words);
}

function showRoute({ compass = {}, usage = {} }, elapsed) {
  const sure = typeof compass.confidence === "number" ? t("confidence {share}", { share: percent(compass.confidence) }) : "";
  route.show([
    [t("Adapter"), compass.adapter ?? t("base model"), compass.canary ? t("canary") : ""],
    [t("Language"), compass.language ? names[compass.language] ?? compass.language : t("none"), sure],
    [t("Reason"), text(compass.reason)],
    [t("Time"), milliseconds(elapsed)],
    [t("Tokens of the reply"), number(usage.completion_tokens)],
  ]);
}
