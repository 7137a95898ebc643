// The table of languages: what is served of each, and where its traffic stands.

import { Table } from "./dom.js";
import { milliseconds, number, percent, text } from "./format.js";

const PHASES = { watching: "watched", collecting: "collects fresh prompts", ready: "waits for compass-ray update" };

const table = new Table(document.getElementById("languages-table"), {
  caption: "What answers, and where the traffic stands",
  label: "Languages",
  columns: [
    { head: "Language" }, { head: "Live" }, { head: "Tried" },
    { head: "Requests", kind: "number" }, { head: "Median", kind: "number" }, { head: "Prompts", kind: "number" },
    { head: "State" }, { head: "Divergence", kind: "number" }, { head: "Threshold", kind: "number" }, { head: "Verdict" },
    { head: "Noise", kind: "number" }, { head: "Distance", kind: "number" }, { head: "Clusters" },
    { head: "Rated good", kind: "number" }, { head: "Rated bad", kind: "number" }, { head: "Versions", kind: "number" }, { head: "Pinned", kind: "long" },
  ],
  empty: "The run has no languages",
});

export function showLanguages({ languages = {}, requests = {}, monitor }) {
  const watched = monitor?.languages ?? {};
  table.show(Object.entries(languages).map(([code, found]) => ({
    key: code,
    cells: [...served(code, found), ...answered(requests.languages?.[code] ?? {}), ...checked(watched[code] ?? {}), ...stored(found)],
  })));
}

function served(code, { name, live, canary, shadow }) {
  const tried = [canary && `${canary.version} by ${percent(canary.share)}`, shadow && `${shadow} as shadow`].filter(Boolean);
  return [`${name ?? code} (${code})`, live ? live : { text: "none", mark: "bad" }, text(tried.join(", "))];
}

const stored = ({ versions = [], pinned }) => [number(versions.length), pinned === "" ? "yes" : text(pinned)];
const answered = ({ requests = 0, latency_p50_ms: p50 }) => [number(requests), milliseconds(p50)];

function checked({ prompts, phase, last_check: last, window, window_size: size, ratings = {}, noise, distance, stale }) {
  const filling = window < size ? `window ${number(window)} of ${number(size)}` : PHASES[phase] ?? phase;
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
