// Decisions, unavailable adapters, errors, and the state of the monitor.

import { Numbers, Table } from "./dom.js";
import { moment, number, text } from "./format.js";
import { t } from "./messages.js";

const at = (id) => document.getElementById(id);
const KINDS = {
  drift: t("drift alarm"), stale: t("clusters stale"), recluster: t("re-clustering"), canary: t("canary started"),
  "canary ended": t("canary stopped"), shadow: t("shadow started"), "shadow ended": t("shadow stopped"), released: t("window discarded"),
  promotion: t("promotion"), rollback: t("rollback"), pin: t("pinned"), unpin: t("unpinned"), static: t("no version trained"),
  "update failed": t("update failed"),
};

const decisions = new Table(at("decisions-table"), {
  caption: t("The last fifty, newest first"), label: t("Updates and decisions"),
  columns: [{ head: t("Time") }, { head: t("Language") }, { head: t("Decision") }, { head: t("From") }, { head: t("To") }, { head: t("Reason"), kind: "long" }],
  empty: t("No decisions yet"),
});
const adapters = new Table(at("adapters-table"), {
  caption: t("Versions that cannot be loaded, and the reason"), label: t("Unavailable adapters"),
  columns: [{ head: t("Adapter") }, { head: t("Reason"), kind: "long" }], empty: t("None"),
});
const errors = new Table(at("errors-table"), {
  caption: t("The last fifty of the replica that answered, newest first"), label: t("Last errors"),
  columns: [{ head: t("Time") }, { head: t("Error"), kind: "long" }], empty: t("None"),
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
  const what = kind === "gate" ? { text: accepted ? t("accepted") : t("rejected"), mark: accepted ? "good" : "bad" } : text(KINDS[kind] ?? kind);
  return [moment(time), text(language), what, text(from), text(to), text(reason)];
}

// State of a part of the service, and the reason if it does not work.
function state(found, none) {
  if (!found) return [none];
  if (found.starting) return [t("starting")];
  if (found.failed) return [t("does not work"), text(found.failed)];
  return [found.unreachable ? t("does not respond ({reason})", { reason: found.unreachable }) : t("running")];
}

function showMonitor({ monitor: found, controller, traffic = {} }) {
  const retention = found?.retention;
  monitor.show([
    [t("State"), ...state(found, t("not running: the run has no clusters"))],
    [t("Controller of updates"), ...state(controller, t("not running: update.auto is off"))],
    [t("Queued"), number(traffic.waiting)],
    [t("Delivered"), number(traffic.delivered)],
    [t("Dropped"), number(traffic.dropped)],
    [t("Retried"), number(traffic.retries)],
    [t("Rejected"), number(found?.rejected)],
    [t("Stored per prompt"), text(retention?.keeps)],
    [t("Retention"), retention ? (retention.days === null ? t("until its window closes") : t("{count} days", { count: number(retention.days, retention.days < 1 ? 2 : 0) })) : "–"],
  ]);
}
