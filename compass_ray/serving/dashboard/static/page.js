// Asks for the status every few seconds and shows it. What fails is said once, in the page's one live region.

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

async function asked() {
  const answer = await fetch("v1/compass/status", { signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" }).catch(unreachable);
  if (answer.status === 401) throw new Error("the key was not accepted; load the page again to give another");
  if (!answer.ok) throw new Error(`the endpoint answered ${answer.status}`);
  return answer.json();
}

function unreachable(error) {
  throw new Error(error.name === "TimeoutError" ? "no answer for ten seconds" : "the endpoint cannot be reached");
}

function tell(error) {
  const since = shown === null ? "Nothing has been read yet." : `What is shown is of ${moment(shown)}.`;
  setText(at("connection"), `The status cannot be read: ${error.message}. ${since} It is tried again every five seconds.`);
}

async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      show(await asked());
    } catch (error) {
      tell(error);
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
