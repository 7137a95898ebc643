// The table of languages: versions and traffic of each.

import { Table } from "./dom.js";
import { milliseconds, number, percent, text } from "./format.js";

const PHASES = { watching: "monitored", collecting: "collects a window", ready: "window ready for an update" };

const table = new Table(document.getElementById("languages-table"), {
  caption: "Versions and traffic",
  label: "Languages",
  columns: [
    { head: "Language" }, { head: "Live" }, { head: "Canary, shadow" },
    { head: "Requests", kind: "number" }, { head: "Median latency", kind: "number" }, { head: "Prompts", kind: "number" },
    { head: "State" }, { head: "Divergence", kind: "number" }, { head: "Threshold", kind: "number" }, { head: "Verdict" },
    { head: "Noise", kind: "number" }, { head: "Distance", kind: "number" }, { head: "Clusters" },
    { head: "Rated good", kind: "number" }, { head: "Rated bad", kind: "number" }, { head: "Versions", kind: "number" }, { head: "Pinned", kind: "long" },
  ],
  empty: "The run has no languages",
});

export function showLanguages({ languages = {}, requests = {}, monitor }) {
  const monitored = monitor?.languages ?? {};
  table.show(Object.entries(languages).map(([code, found]) => ({
    key: code,
    cells: [...served(code, found), ...answered(requests.languages?.[code] ?? {}), ...checked(monitored[code] ?? {}), ...stored(found)],
  })));
}

function served(code, { name, live, canary, shadow }) {
  const candidates = [canary && `canary ${canary.version} (${percent(canary.share)})`, shadow && `shadow ${shadow}`].filter(Boolean);
  return [`${name ?? code} (${code})`, live ? live : { text: "none", mark: "bad" }, text(candidates.join(", "))];
}

const stored = ({ versions = [], pinned }) => [number(versions.length), pinned === "" ? "yes" : text(pinned)];
const answered = ({ requests = 0, latency_p50_ms: p50 }) => [number(requests), milliseconds(p50)];

function checked({ prompts, phase, last_check: last, window, window_size: size, excluded, ratings = {}, noise, distance, stale }) {
  const others = excluded ? `, ${number(excluded)} prompts not counted` : "";
  const filling = window < size ? `window ${number(window)} of ${number(size)}${others}` : PHASES[phase] ?? phase;
  return [
    number(prompts), text(filling), number(last?.divergence, 3), number(last?.threshold, 3), verdict(last),
    percent(noise), number(distance, 3), fit(stale), number(ratings.good), number(ratings.bad),
  ];
}

function verdict(last) {
  if (!last) return "–";
  return last.drifted ? { text: "above", mark: "bad" } : { text: "below", mark: "good" };
}

function fit(stale) {
  if (stale === undefined) return "–";
  return stale ? { text: "no longer fit", mark: "bad" } : { text: "fit", mark: "good" };
}
