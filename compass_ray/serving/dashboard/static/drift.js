// The divergence and threshold of the selected language at each check.

import { Chart } from "./charts.js";
import { setOptions } from "./dom.js";
import { languageName, moment, number, text } from "./format.js";
import { verdict } from "./health.js";
import { t } from "./messages.js";

const choice = document.getElementById("drift-language");
const figure = document.getElementById("chart-drift");
const LONG = 5;
let status = {};

// Entries whose divergence is null are gaps and have no row.
const rows = ([times, divergence, threshold, versions, drifted, p_values]) => times.map((time, i) => ({
  key: `${i}-${time}`,
  empty: divergence[i] === null,
  cells: [
    moment(time), number(divergence[i], 3), number(threshold[i], 3), number(p_values?.[i], 4),
    verdict({ drifted: drifted[i], divergence: divergence[i], threshold: threshold[i] }), text(versions[i]),
  ],
})).filter((row) => !row.empty).reverse();

const changes = ([times, divergence, , versions]) => {
  const known = times.map((time, i) => ({ time, word: String(versions[i]), check: divergence[i] !== null })).filter(({ check }) => check);
  return known.filter(({ word }, i) => i && word !== known[i - 1].word);
};

// Columns after the second are for the table and the marks; the chart has two lines.
export const chart = new Chart(figure, {
  heading: t("Divergence in bits"),
  table: {
    caption: t("Checks, newest first"), label: t("Divergence, numbers"),
    columns: [
      { head: t("Time") }, { head: t("Divergence"), kind: "number" }, { head: t("Threshold"), kind: "number" },
      { head: t("p-value"), kind: "number" }, { head: t("Verdict") }, { head: t("Version") },
    ],
    empty: t("No checks"),
  },
  lines: [{ label: t("divergence") }, { label: t("threshold"), dashed: true }],
  format: (v) => number(v, 3), rows, marks: changes,
});

choice.addEventListener("change", draw);

export function showDrift(given) {
  status = given;
  const codes = Object.keys(given.monitor?.checks ?? {});
  const none = codes.length === 0;
  document.getElementById("drift-none").hidden = !none;
  document.getElementById("drift-choice").hidden = figure.hidden = none;
  if (none) return;
  setOptions(choice, codes.map((code) => [code, `${languageName(code, status.languages?.[code]?.name)} (${code})`]), mostDiverged(codes));
  draw();
}

function mostDiverged(codes) {
  const excess = (code) => {
    const { divergence, threshold } = status.monitor.checks[code];
    return (divergence.at(-1) ?? 0) - (threshold.at(-1) ?? 0);
  };
  return codes.reduce((worst, code) => (excess(code) > excess(worst) ? code : worst));
}

function draw() {
  const found = status.monitor?.checks?.[choice.value];
  if (!found) return;
  const last = found.divergence.length - 1;
  const [drifted, divergence, threshold] = [found.drifted[last], found.divergence[last], found.threshold[last]];
  const sentence = t("{language}. Checks: {count}. The last one: {verdict}, {bits} bits (threshold {threshold}).", {
    language: choice.selectedOptions[0].textContent, count: number(last + 1), verdict: verdict({ drifted, divergence, threshold }).text,
    bits: number(divergence, 3), threshold: number(threshold, 3),
  });
  const columns = [found.time, found.divergence, found.threshold, found.version, found.drifted, found.p_value ?? []];
  chart.show(withGaps(columns), sentence);
}

// The columns with an entry of nulls where a pause is much longer than usual, so that the line has a gap there.
export function withGaps(columns) {
  const [times] = columns;
  const pauses = times.slice(1).map((time, i) => time - times[i]);
  const usual = [...pauses].sort((a, b) => a - b)[Math.floor(pauses.length / 2)];
  const after = pauses.map((pause) => usual > 0 && pause > LONG * usual);
  return columns.map((column, which) => column.flatMap((value, i) =>
    after[i] ? [value, which === 0 ? (times[i] + times[i + 1]) / 2 : null] : [value]));
}
