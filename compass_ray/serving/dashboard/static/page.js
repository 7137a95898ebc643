// Polls the status and shows it. Errors are shown in the status line of the header, which screen readers announce.

import { setText } from "./dom.js";
import { showCommands } from "./commands.js";
import { moment } from "./format.js";
import { showDrift } from "./drift.js";
import { assess, showHealth } from "./health.js";
import { showLanguages } from "./languages.js";
import { t } from "./messages.js";
import { showRecords } from "./records.js";
import { showTraffic } from "./traffic.js";
import { showModels } from "./try.js";

const PERIOD = 5000;
const TIMEOUT = 10000;
const at = (id) => document.getElementById(id);
const pause = at("pause");
let shown = null;
let timer = 0;

function show(status) {
  shown = status.time;
  setText(at("run"), status.run ?? "");
  setText(at("as-of"), moment(status.time));
  at("as-of").setAttribute("datetime", new Date(status.time * 1000).toISOString());
  showHealth(assess(status));
  for (const part of [showTraffic, showLanguages, showCommands, showDrift, showModels, showRecords]) part(status);
  setText(at("connection"), "");
}

async function fetchStatus() {
  const response = await fetch("v1/compass/status", { signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" }).catch(unreachable);
  if (response.status === 401) throw new Error(t("the API key was rejected; reload the page to enter another one"));
  if (!response.ok) throw new Error(t("the endpoint returned {status}", { status: response.status }));
  return response.json();
}

function unreachable(error) {
  throw new Error(error.name === "TimeoutError" ? t("no response for ten seconds") : t("the endpoint cannot be reached"));
}

function showError(error) {
  const age = shown === null ? t("No status was read yet.") : t("The page shows the status of {time}.", { time: moment(shown) });
  showHealth({ state: "degraded", reasons: [] });
  setText(at("connection"), [t("Cannot read the status: {reason}.", { reason: error.message }), age, t("Retrying every five seconds.")].join(" "));
}

async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      show(await fetchStatus());
    } catch (error) {
      showError(error);
    }
  }
  clearTimeout(timer);
  if (!paused()) timer = setTimeout(refresh, PERIOD);
}

const paused = () => pause.getAttribute("aria-pressed") === "true";

pause.addEventListener("click", () => {
  pause.setAttribute("aria-pressed", String(!paused()));
  if (paused()) clearTimeout(timer);
  else refresh();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused()) refresh(); });
refresh();
