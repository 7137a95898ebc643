// Decisions, unavailable adapters, errors, and the state of the monitor.

import { Numbers, Table } from "./dom.js";
import { moment, number, text } from "./format.js";

const at = (id) => document.getElementById(id);
const KINDS = {
  drift: "drift alarm", stale: "clusters stale", recluster: "re-clustering", "canary ended": "canary stopped",
  "shadow ended": "shadow stopped", released: "window discarded",
};

const decisions = new Table(at("decisions-table"), {
  caption: "The last fifty, newest first", label: "Updates and decisions",
  columns: [{ head: "Time" }, { head: "Language" }, { head: "Decision" }, { head: "From" }, { head: "To" }, { head: "Reason", kind: "long" }],
  empty: "No decisions yet",
});
const adapters = new Table(at("adapters-table"), {
  caption: "Versions that cannot be loaded, and the reason", label: "Unavailable adapters",
  columns: [{ head: "Adapter" }, { head: "Reason", kind: "long" }], empty: "None",
});
const errors = new Table(at("errors-table"), {
  caption: "The last fifty of the replica that answered, newest first", label: "Last errors",
  columns: [{ head: "Time" }, { head: "Error", kind: "long" }], empty: "None",
});
const monitor = new Numbers(at("monitor"));

export function showRecords(status) {
  decisions.show(keyed(status.decisions, decision));
  adapters.show(Object.entries(status.problems ?? {}).map(([name, why]) => ({ key: `p${name}`, cells: [name, text(why)] })));
  errors.show(keyed(status.errors, ({ time, message }) => [moment(time), text(message)]));
  showMonitor(status);
}

// Equal records get different keys: the key contains the number of earlier equal records.
function keyed(lines = [], cells) {
  const seen = new Map();
  return lines.map((line) => {
    const json = JSON.stringify(line);
    seen.set(json, (seen.get(json) ?? 0) + 1);
    return { key: `${seen.get(json)}${json}`, cells: cells(line) };
  }).reverse();
}

function decision({ time, language, kind, from, to, reason, accepted }) {
  const what = kind === "gate" ? { text: accepted ? "accepted" : "rejected", mark: accepted ? "good" : "bad" } : text(KINDS[kind] ?? kind);
  return [moment(time), text(language), what, text(from), text(to), text(reason)];
}

// State of a part of the service, and the reason if it does not work.
function state(found, none) {
  if (!found) return [none];
  if (found.starting) return ["starting"];
  if (found.failed) return ["does not work", text(found.failed)];
  return [found.unreachable ? `does not respond (${found.unreachable})` : "running"];
}

function showMonitor({ monitor: found, controller, traffic = {} }) {
  const retention = found?.retention;
  monitor.show([
    ["State", ...state(found, "not running: the run has no clusters")],
    ["Controller of updates", ...state(controller, "not running: update.auto is off")],
    ["Queued", number(traffic.waiting)],
    ["Delivered", number(traffic.delivered)],
    ["Dropped", number(traffic.dropped)],
    ["Retried", number(traffic.retries)],
    ["Rejected", number(found?.rejected)],
    ["Stored per prompt", text(retention?.keeps)],
    ["Retention", retention ? (retention.days === null ? "until its window closes" : `${number(retention.days, retention.days < 1 ? 2 : 0)} days`) : "–"],
  ]);
}
