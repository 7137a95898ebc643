// The table of languages: versions and traffic of each.

import { Table } from "./dom.js";
import { languageName, milliseconds, number, percent, text } from "./format.js";
import { verdict } from "./health.js";
import { t } from "./messages.js";

const PHASES = { watching: t("monitored"), collecting: t("collects a window"), ready: t("window ready for an update") };
const MANY_BAD = 0.2;
const ENOUGH_RATINGS = 10;

const table = new Table(document.getElementById("languages-table"), {
  caption: t("Versions and traffic"),
  label: t("Languages"),
  cards: true,
  columns: [
    { head: t("Language") }, { head: t("Live") }, { head: t("Verdict") }, { head: t("State") },
    { head: t("Divergence"), kind: "number" }, { head: t("Threshold"), kind: "number" },
    { head: t("Requests"), kind: "number" }, { head: t("Median latency"), kind: "number" }, { head: t("Prompts"), kind: "number" },
    { head: t("Rated bad"), kind: "number" }, { head: t("Canary, shadow") },
    { head: t("Noise"), kind: "number" }, { head: t("Distance"), kind: "number" }, { head: t("Clusters") },
    { head: t("Versions"), kind: "number" }, { head: t("Pinned"), kind: "long" },
  ],
  empty: t("The run has no languages"),
});

export function showLanguages({ languages = {}, requests = {}, monitor }) {
  const monitored = monitor?.languages ?? {};
  table.show(Object.entries(languages).map(([code, found]) => {
    const checks = monitored[code] ?? {};
    return { key: code, cells: [
      `${languageName(code, found.name)} (${code})`, found.live ? found.live : { text: t("none"), mark: "bad" }, ...checked(checks),
      ...answered(requests.languages?.[code] ?? {}), number(checks.prompts), rated(checks.ratings), candidates(found),
      percent(checks.noise), number(checks.distance, 3), fit(checks.stale), ...stored(found),
    ] };
  }));
}

function candidates({ canary, shadow }) {
  return text([
    canary && t("canary {version} ({share})", { version: canary.version, share: percent(canary.share) }),
    shadow && t("shadow {version}", { version: shadow }),
  ].filter(Boolean).join(", "));
}

const stored = ({ versions = [], pinned }) => [number(versions.length), pinned === "" ? t("yes") : text(pinned)];
const answered = ({ requests = 0, latency_p50_ms: p50 }) => [number(requests), milliseconds(p50)];

function checked({ phase, last_check: last, window, window_size: size, excluded }) {
  const others = excluded ? [t("not counted: {count} prompts", { count: number(excluded) })] : [];
  const filled = t("window {count} of {size}", { count: number(window), size: number(size) });
  const filling = window < size ? [filled, ...others].join(", ") : PHASES[phase] ?? phase;
  return [last ? verdict(last) : "–", text(filling), number(last?.divergence, 3), number(last?.threshold, 3)];
}

// The share of bad ratings. It is marked if it is large and not by a few ratings only.
export function rated({ good = 0, bad = 0 } = {}) {
  const all = good + bad;
  if (!all) return "–";
  const share = bad / all;
  const shown = t("{share} of {count}", { share: percent(share), count: number(all) });
  return { text: shown, mark: share >= MANY_BAD && all >= ENOUGH_RATINGS ? "bad" : null };
}

function fit(stale) {
  if (stale === undefined) return "–";
  return stale ? { text: t("no longer fit"), mark: "bad" } : { text: t("fit"), mark: "good" };
}
