// The traffic section: the replica's counts, and the last hour in three charts.

import { Chart } from "./charts.js";
import { Numbers } from "./dom.js";
import { milliseconds, number, timeOfDay } from "./format.js";

const SECONDS = 10;
const numbers = new Numbers(document.getElementById("numbers"));

function timed(id, heading, lines, format) {
  const columns = [{ head: "Time" }, ...lines.map(({ label }) => ({ head: label, kind: "number" }))];
  const rows = ([times, ...values]) =>
    times.map((time, i) => ({ key: time, cells: [timeOfDay(time), ...values.map((column) => format(column[i]))] })).reverse();
  const table = { caption: "Intervals of ten seconds, newest first", label: `${heading}, numbers`, columns, empty: "No data yet" };
  return new Chart(document.getElementById(id), { heading, table, lines, format, rows });
}

// Enough digits to distinguish the axis labels of a service with little traffic.
const rate = (value) => number(value, Number.isInteger(value) ? 0 : value < 1 ? 2 : value < 10 ? 1 : 0);

const requests = timed("chart-requests", "Requests per second", [{ label: "ended" }, { label: "refused", dashed: true }], rate);
const tokens = timed("chart-tokens", "Tokens per second", [{ label: "generated" }, { label: "prompt", dashed: true }], rate);
const latency = timed(
  "chart-latency", "Latency", [{ label: "median" }, { label: "95th percentile", dashed: true }, { label: "first token" }], milliseconds);

const perSecond = (column = []) => column.map((value) => value / SECONDS);
const mean = (column) => (column.length ? column.reduce((sum, value) => sum + value, 0) / column.length : 0);

// The last interval is incomplete and would look like a drop.
const closed = (history) => Object.fromEntries(Object.entries(history).map(([name, column]) => [name, column.slice(0, -1)]));

export function showTraffic({ requests: counts = {}, history: intervals = {} }) {
  const history = closed(intervals);
  numbers.show([
    ["Requests", number(counts.requests)],
    ["Active", number(counts.waiting)],
    ["Tokens per second", number(counts.tokens_per_second, 1)],
    ["Median latency", milliseconds(counts.latency_p50_ms)],
    ["95th percentile", milliseconds(counts.latency_p95_ms)],
    ["First token", milliseconds(counts.first_token_p50_ms)],
    ["Refused", number(counts.failed), refused(counts)],
    ["Client disconnected", number(counts.cancelled)],
    ["Fallbacks", number(counts.fallbacks)],
  ]);
  const times = history.time ?? [];
  const ended = perSecond(history.requests), generated = perSecond(history.completion_tokens);
  requests.show([times, ended, perSecond(history.refused)], `Last hour. Mean: ${number(mean(ended), 1)} requests per second.`);
  tokens.show([times, generated, perSecond(history.prompt_tokens)], `Last hour. Mean: ${number(mean(generated), 1)} generated tokens per second.`);
  latency.show(
    [times, history.latency_p50_ms ?? [], history.latency_p95_ms ?? [], history.first_token_p50_ms ?? []],
    `Last hour. Median of the last thousand responses: ${milliseconds(counts.latency_p50_ms)}.`);
}

function refused(counts) {
  return Object.entries(counts.refused ?? {}).map(([status, count]) => `${status}:\u00a0${number(count)}`).join(", ");
}
