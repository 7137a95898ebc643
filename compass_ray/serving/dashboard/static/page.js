// Polls the status and shows it. Errors are shown in the page's only live region.

import { setText } from "./dom.js";
import { moment } from "./format.js";
import { showDrift } from "./drift.js";
import { showLanguages } from "./languages.js";
import { showRecords } from "./records.js";
import { showTraffic } from "./traffic.js";

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
  for (const part of [showTraffic, showLanguages, showDrift, showRecords]) part(status);
  setText(at("connection"), "");
}

async function fetchStatus() {
  const response = await fetch("v1/compass/status", { signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" }).catch(unreachable);
  if (response.status === 401) throw new Error("the API key was rejected; reload the page to enter another one");
  if (!response.ok) throw new Error(`the endpoint returned ${response.status}`);
  return response.json();
}

function unreachable(error) {
  throw new Error(error.name === "TimeoutError" ? "no response for ten seconds" : "the endpoint cannot be reached");
}

function showError(error) {
  const age = shown === null ? "No status was read yet." : `The page shows the status of ${moment(shown)}.`;
  setText(at("connection"), `Cannot read the status: ${error.message}. ${age} Retrying every five seconds.`);
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
