// The divergence and threshold of the selected language at each check.

import { Chart } from "./charts.js";
import { make } from "./dom.js";
import { moment, number, text } from "./format.js";

const choice = document.getElementById("drift-language");
const figure = document.getElementById("chart-drift");
let status = {};

const rows = ([times, divergence, threshold, versions, drifted]) => times.map((time, i) => ({
  key: `${i}-${time}`,
  cells: [
    moment(time), number(divergence[i], 3), number(threshold[i], 3),
    drifted[i] ? { text: "above", mark: "bad" } : { text: "below", mark: "good" }, text(versions[i]),
  ],
})).reverse();

const changes = ([times, , , versions]) => times.flatMap((time, i) =>
  i && versions[i] !== versions[i - 1] ? [{ time, word: String(versions[i]) }] : []);

// The last two columns are for the table and the marks; the chart has two lines.
const chart = new Chart(figure, {
  heading: "Divergence in bits",
  table: {
    caption: "Checks, newest first", label: "Divergence, numbers",
    columns: [{ head: "Time" }, { head: "Divergence", kind: "number" }, { head: "Threshold", kind: "number" }, { head: "Verdict" }, { head: "Version" }],
    empty: "No checks",
  },
  lines: [{ label: "divergence" }, { label: "threshold", dashed: true }],
  format: (v) => number(v, 2), rows, marks: changes,
});

choice.addEventListener("change", draw);

export function showDrift(given) {
  status = given;
  const codes = Object.keys(given.monitor?.checks ?? {});
  const none = codes.length === 0;
  document.getElementById("drift-none").hidden = !none;
  document.getElementById("drift-choice").hidden = figure.hidden = none;
  if (none) return;
  setOptions(codes);
  draw();
}

function setOptions(codes) {
  const present = [...choice.options].map((option) => option.value);
  if (present.join() === codes.join()) return;
  const chosen = choice.value || mostDiverged(codes);
  choice.replaceChildren(...codes.map((code) => make("option", { value: code }, `${status.languages?.[code]?.name ?? code} (${code})`)));
  choice.value = codes.includes(chosen) ? chosen : codes[0];
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
  const sentence = `${choice.selectedOptions[0].textContent}: ${number(last + 1)} checks; the last one: ${number(found.divergence[last], 3)} bits, `
    + `${found.drifted[last] ? "above" : "below"} the threshold of ${number(found.threshold[last], 3)}.`;
  chart.show([found.time, found.divergence, found.threshold, found.version, found.drifted], sentence);
}
