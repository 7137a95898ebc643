// The traffic section: the replica's counts, and the last hour in three charts.

import { Chart } from "./charts.js";
import { Numbers } from "./dom.js";
import { milliseconds, number, timeOfDay } from "./format.js";
import { t } from "./messages.js";

const SECONDS = 10;
const numbers = new Numbers(document.getElementById("numbers"));

function timed(id, heading, lines, format, log = false) {
  const columns = [{ head: t("Time") }, ...lines.map(({ label }) => ({ head: label, kind: "number" }))];
  const rows = ([times, ...values]) =>
    times.map((time, i) => ({ key: time, cells: [timeOfDay(time), ...values.map((column) => format(column[i]))] })).reverse();
  const table = { caption: t("Intervals of ten seconds, newest first"), label: t("{heading}, numbers", { heading }), columns, empty: t("No data yet.") };
  return new Chart(document.getElementById(id), { heading, table, lines, format, rows, log });
}

// Enough digits to distinguish the axis labels of a service with little traffic.
const rate = (value) => number(value, Number.isInteger(value) ? 0 : value < 1 ? 2 : value < 10 ? 1 : 0);

const requests = timed("chart-requests", t("Requests per second"), [{ label: t("ended") }, { label: t("refused"), dashed: true }], rate);
const tokens = timed("chart-tokens", t("Tokens per second"), [{ label: t("generated") }, { label: t("prompt"), dashed: true }], rate);
const latency = timed(
  "chart-latency", t("Latency"), [{ label: t("median") }, { label: t("95th percentile"), dashed: true }, { label: t("first token") }], milliseconds, true);

const perSecond = (column = []) => column.map((value) => value / SECONDS);
const mean = (column) => (column.length ? column.reduce((sum, value) => sum + value, 0) / column.length : 0);

// The last interval is incomplete and would look like a drop.
const closed = (history) => Object.fromEntries(Object.entries(history).map(([name, column]) => [name, column.slice(0, -1)]));

export function showTraffic({ requests: counts = {}, history: intervals = {} }) {
  const history = closed(intervals);
  numbers.show([
    [t("Requests"), number(counts.requests)],
    [t("Active"), number(counts.waiting)],
    [t("Tokens per second"), number(counts.tokens_per_second, 1)],
    [t("Median latency"), milliseconds(counts.latency_p50_ms)],
    [t("95th percentile"), milliseconds(counts.latency_p95_ms)],
    [t("First token"), milliseconds(counts.first_token_p50_ms)],
    [t("Refused"), number(counts.failed), refused(counts)],
    [t("Client disconnected"), number(counts.cancelled)],
    [t("Fallbacks"), number(counts.fallbacks)],
    [t("Prompts not recorded"), number(counts.not_stored)],
  ]);
  const times = history.time ?? [];
  const ended = perSecond(history.requests), generated = perSecond(history.completion_tokens);
  requests.show([times, ended, perSecond(history.refused)], t("Last hour. Mean: {rate} requests per second.", { rate: number(mean(ended), 1) }));
  tokens.show([times, generated, perSecond(history.prompt_tokens)], t("Last hour. Mean: {rate} generated tokens per second.", { rate: number(mean(generated), 1) }));
  latency.show(
    [times, history.latency_p50_ms ?? [], history.latency_p95_ms ?? [], history.first_token_p50_ms ?? []],
    t("Last hour, logarithmic scale. Median of the last thousand responses: {time}.", { time: milliseconds(counts.latency_p50_ms) }));
}

function refused(counts) {
  return Object.entries(counts.refused ?? {}).map(([status, count]) => `${status}:\u00a0${number(count)}`).join(", ");
}
