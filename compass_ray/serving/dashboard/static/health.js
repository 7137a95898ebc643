// The state of the service in one word, with the reasons; and the verdict of one drift check.

import { make, quoted, setText } from "./dom.js";
import { languageName, number, percent } from "./format.js";
import { t } from "./messages.js";

const RECENT_SECONDS = 300;
const SHOWN = 6;
const at = (id) => document.getElementById(id);

export const STATES = {
  degraded: { word: t("degraded"), sign: "■" },
  drifting: { word: t("drifting"), sign: "▲" },
  updating: { word: t("updating"), sign: "◆" },
  healthy: { word: t("healthy"), sign: "●" },
};

// `drifted` is the check's own decision. The divergence alone does not say it: it may be above the threshold by chance.
export function verdict({ drifted, divergence, threshold }) {
  if (drifted) return divergence > threshold
    ? { state: "alarm", text: t("alarm"), mark: "bad" }
    : { state: "alarm", text: t("alarm: replies became worse"), mark: "bad" };
  if (divergence > threshold) return { state: "above", text: t("above the threshold, not significant"), mark: "warn" };
  return { state: "calm", text: t("calm"), mark: "good" };
}

// {state, reasons}: the most severe state, and the reasons of every state but healthy, the most severe first.
export function assess(status) {
  const reasons = { degraded: degraded(status), drifting: [], updating: [] };
  for (const [code, found] of Object.entries(status.monitor?.languages ?? {})) drift(status, code, found, reasons);
  for (const [code, { name, canary, shadow }] of Object.entries(status.languages ?? {})) {
    if (canary) reasons.updating.push(t("{language}: canary {version} answers {share} of the requests", { language: languageName(code, name), version: canary.version, share: percent(canary.share) }));
    if (shadow) reasons.updating.push(t("{language}: shadow {version} is compared", { language: languageName(code, name), version: shadow }));
  }
  const state = Object.keys(reasons).find((each) => reasons[each].length) ?? "healthy";
  return { state, reasons: Object.values(reasons).flat() };
}

function degraded({ monitor, controller, problems = {}, errors = [], time }) {
  const found = [];
  for (const [part, words] of [[monitor, t("the traffic monitor does not work: {reason}")], [controller, t("the controller of updates does not work: {reason}")]]) {
    const reason = part?.failed || part?.unreachable;
    if (reason) found.push(t(words, { reason }));
  }
  const unavailable = Object.keys(problems);
  if (unavailable.length) found.push(t("adapters that cannot be loaded: {names}", { names: unavailable.join(", ") }));
  const recent = errors.filter((error) => time - error.time <= RECENT_SECONDS);
  if (recent.length) found.push(t("errors in the last five minutes: {count}", { count: number(recent.length) }));
  return found;
}

function drift({ run, languages = {}, controller }, code, { phase, last_check: last, stale, window, window_size: size }, reasons) {
  const language = languageName(code, languages[code]?.name);
  if (phase === "ready") {
    const runs = controller && !controller.failed && !controller.unreachable;
    if (runs) reasons.updating.push(t("{language}: an update is due or runs", { language }));
    else reasons.drifting.push(t("{language}: a window is ready; run {command}", { language, command: `compass-ray update ${quoted(run ?? "RUN")} --ready` }));
  } else if (phase === "collecting") {
    reasons.drifting.push(t("{language}: alarm, collecting a window of prompts ({count} of {size})", { language, count: number(window), size: number(size) }));
  } else if (last?.drifted) {
    const worse = last.divergence <= last.threshold;
    reasons.drifting.push(worse
      ? t("{language}: replies became worse at the last check", { language })
      : t("{language}: {bits} bits at the last check, significantly above the threshold of {threshold}", { language, bits: number(last.divergence, 3), threshold: number(last.threshold, 3) }));
  }
  if (stale) reasons.drifting.push(t("{language}: the clusters no longer fit the traffic", { language }));
}

export function showHealth({ state, reasons }) {
  const { word, sign } = STATES[state];
  at("health").className = `health ${state}`;
  setText(at("health-state"), `${sign} ${word}`);
  const hidden = reasons.length - SHOWN;
  const shown = hidden > 0 ? [...reasons.slice(0, SHOWN), t("and {count} more", { count: number(hidden) })] : reasons;
  const list = at("health-reasons");
  if ([...list.children].map((each) => each.textContent).join("\n") !== shown.join("\n"))
    list.replaceChildren(...shown.map((reason) => make("li", {}, reason)));
}
