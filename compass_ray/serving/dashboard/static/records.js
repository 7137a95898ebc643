// Decisions, problems of adapters, errors, and the monitor's own state.

import { Numbers, Table } from "./dom.js";
import { moment, number, text } from "./format.js";

const at = (id) => document.getElementById(id);
const KINDS = {
  drift: "alarm", stale: "clusters no longer fit", recluster: "clustered anew", gate: "gate", promotion: "promotion",
  rollback: "roll-back", released: "window let go",
};

const decisions = new Table(at("decisions-table"), {
  caption: "The last fifty, the newest first", label: "Updates and decisions",
  columns: [{ head: "Time" }, { head: "Language" }, { head: "What" }, { head: "From" }, { head: "To" }, { head: "Reason", kind: "long" }],
  empty: "Nothing has been decided yet",
});
const adapters = new Table(at("adapters-table"), {
  caption: "Versions that are left out, and why", label: "Adapters that cannot be used",
  columns: [{ head: "Adapter" }, { head: "Why", kind: "long" }], empty: "None",
});
const errors = new Table(at("errors-table"), {
  caption: "The last fifty of the replica that answered, the newest first", label: "Last errors",
  columns: [{ head: "Time" }, { head: "Error", kind: "long" }], empty: "None",
});
const monitor = new Numbers(at("monitor"));

export function showRecords(status) {
  decisions.show(keyed(status.decisions, decision));
  adapters.show(Object.entries(status.problems ?? {}).map(([name, why]) => ({ key: `p${name}`, cells: [name, text(why)] })));
  errors.show(keyed(status.errors, ({ time, message }) => [moment(time), text(message)]));
  showMonitor(status);
}

// Lines may be alike; which of its like a line is makes its key.
function keyed(lines = [], cells) {
  const seen = new Map();
  return lines.map((line) => {
    const said = JSON.stringify(line);
    seen.set(said, (seen.get(said) ?? 0) + 1);
    return { key: `${seen.get(said)}${said}`, cells: cells(line) };
  }).reverse();
}

function decision({ time, language, kind, from, to, reason, accepted }) {
  const what = kind === "gate" ? { text: accepted ? "accepted" : "rejected", mark: accepted ? "good" : "bad" } : text(KINDS[kind] ?? kind);
  return [moment(time), text(language), what, text(from), text(to), text(reason)];
}

function showMonitor({ monitor: found, traffic = {} }) {
  const kept = found?.retention;
  const state = !found ? "watches nothing: the run has no clusters" : found.unreachable ? `does not answer (${found.unreachable})` : "answers";
  monitor.show([
    ["State", state],
    ["On their way", number(traffic.waiting)],
    ["Delivered", number(traffic.delivered)],
    ["Dropped", number(traffic.dropped)],
    ["Sent again", number(traffic.retries)],
    ["Turned away", number(found?.rejected)],
    ["Kept of a prompt", text(kept?.keeps)],
    ["For at most", kept ? (kept.days === null ? "its window" : `${number(kept.days, kept.days < 1 ? 2 : 0)} days`) : "–"],
  ]);
}
