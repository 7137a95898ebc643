// An accessible chart: with a heading, a summary sentence, a text legend and a table of its numbers.

import { make, setText, Table } from "./dom.js";
import { moment } from "./format.js";
import { t } from "./messages.js";

const HEIGHT = 220;
const LINE = 14;
const MIN_ROOM = 62;
const MIN_SPAN = 120;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000];
const dark = matchMedia("(prefers-color-scheme: dark)");

// Room for the labels of an axis in CSS pixels: as wide as the widest, and never less than in other charts.
export function labelRoom(u, labels, index) {
  const { font, ticks, gap } = u.axes[index];
  u.ctx.font = font[0];
  const widest = Math.max(0, ...(labels ?? []).map((label) => u.ctx.measureText(label).width / devicePixelRatio));
  return Math.max(MIN_ROOM, Math.ceil(widest + ticks.size + gap));
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Lines: {label, dashed}; at most three. `format` returns the text of a value, `rows` the table rows of the data. With `log`, the
// values have a logarithmic axis, and values that are not positive are gaps. A missing value is a gap in its line.
export class Chart {
  constructor(figure, { heading, table, lines, format, rows, marks = () => [], log = false }) {
    this.lines = lines;
    this.format = format;
    this.rows = rows;
    this.marks = marks;
    this.log = log;
    this.data = [[], ...lines.map(() => [])];
    const title = make("h3", { id: `${figure.id}-heading` }, heading);
    this.sentence = make("p", { class: "note" });
    this.legend = make("ul", { class: "legend", "aria-hidden": "true" }, ...lines.map(legendEntry));
    this.plot = make("div", { class: "plot", role: "img", dir: "ltr" });
    this.readout = make("p", { class: "readout", "aria-hidden": "true" });
    this.details = make("details", {}, make("summary", {}, t("{heading}: the numbers as a table", { heading })));
    this.table = new Table(this.details, table);
    figure.append(title, this.sentence, this.legend, this.plot, this.readout, this.details);
    this.details.addEventListener("toggle", () => this.fillTable());
    dark.addEventListener("change", () => this.redraw());
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  show(data, sentence) {
    this.data = data;
    const none = data[0].length === 0;
    for (const part of [this.legend, this.plot, this.readout, this.details]) part.hidden = none;
    setText(this.sentence, none ? t("No data yet.") : sentence);
    if (none) return;
    this.plot.setAttribute("aria-label", sentence);
    if (this.drawn) this.drawn.setData(this.drawnData());
    else this.redraw();
    this.fillTable();
  }

  // Further columns are only for the table.
  drawnData() {
    const drawn = this.data.slice(0, this.lines.length + 1);
    return this.log ? drawn.map((column, i) => (i ? column.map((value) => (value > 0 ? value : null)) : column)) : drawn;
  }

  fillTable() {
    if (this.details.open) this.table.show(this.rows(this.data));
  }

  redraw() {
    if (this.drawn) this.drawn.destroy();
    this.drawn = this.plot.clientWidth ? new uPlot(this.options(), this.drawnData(), this.plot) : null;
  }

  resize() {
    if (!this.drawn) this.redraw();
    else if (this.plot.clientWidth && this.plot.clientWidth !== this.drawn.width)
      this.drawn.setSize({ width: this.plot.clientWidth, height: HEIGHT });
  }

  options() {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1 } };
    const series = this.lines.map(({ label, dashed }, i) => ({
      label, stroke: colour(`--series-${i + 1}`), width: 2, dash: dashed ? [8, 5] : [], spanGaps: false,
      points: { show: false, size: 6, filter: lone },
    }));
    return {
      width: this.plot.clientWidth, height: HEIGHT, legend: { show: false }, padding: [null, 32, null, null],
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { range: (u) => timeRange(u.data[0][0], u.data[0].at(-1)) }, y: this.log ? { distr: 3, log: 10 } : { range: (_, low, high) => [0, Math.max(high ?? 0, 1e-9) * 1.1] } },
      axes: [{ ...axis, incrs: STEPS, space: 60, values: timeLabels }, { ...axis, size: labelRoom, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : this.format(tick))) }],
      series: [{}, ...series],
      hooks: { setCursor: [(u) => this.read(u.cursor.idx)], draw: [(u) => this.drawMarks(u)] },
    };
  }

  read(index) {
    const at = typeof index === "number" ? this.rows(this.data.map((column) => [column[index]]))[0] : null;
    const columns = this.table.columns.map(({ head }) => head);
    setText(this.readout, at ? at.cells.map((cell, i) => `${i ? columns[i] + " " : ""}${cell.text ?? cell}`).join(" · ") : "");
  }

  // Vertical lines with a label, for example where another version became live.
  drawMarks(u) {
    const { ctx } = u;
    ctx.save();
    ctx.fillStyle = colour("--quiet");
    ctx.strokeStyle = colour("--back");
    ctx.lineWidth = 4 * devicePixelRatio;
    ctx.textAlign = "left";
    ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    const ends = [];
    const marks = this.marks(this.data).map(({ time, word }) => ({ x: u.valToPos(time, "x", true), word }));
    for (const { x } of marks) ctx.fillRect(x, u.bbox.top, devicePixelRatio, u.bbox.height);
    for (const { x, word } of marks) {
      const line = freeLine(ends, x);
      ends[line] = x + ctx.measureText(word).width + 8 * devicePixelRatio;
      const at = [word, x + 4 * devicePixelRatio, u.bbox.top + (12 + line * LINE) * devicePixelRatio];
      // An outline that separates the label from the lines.
      ctx.strokeText(...at);
      ctx.fillText(...at);
    }
    ctx.restore();
  }
}

// The range of the time axis, from the first and last time in seconds. uPlot itself gives a single point an axis of years.
export function timeRange(first, last) {
  if (typeof first !== "number") return [null, null];
  const missing = Math.max(0, MIN_SPAN - (last - first));
  return [first - missing / 2, last + missing / 2];
}

// Indices of values between two gaps. They get a point, because a line cannot show a single value.
export function lone(u, series) {
  const values = u.data[series];
  const gap = (i) => values[i] === null || values[i] === undefined;
  const found = values.flatMap((_, i) => (!gap(i) && gap(i - 1) && gap(i + 1) ? [i] : []));
  return found.length ? found : null;
}

// The first row of labels that is free at x. `ends` has the right edge of the last label of each row.
export function freeLine(ends, x) {
  const free = ends.findIndex((end) => end <= x);
  return free < 0 ? ends.length : free;
}

// The day is shown under the first label and where it changes. Seconds are shown if labels are less than a minute apart.
export function timeLabels(_, ticks, __, ___, step) {
  const length = step < 60 ? 8 : 5;
  const days = ticks.map((tick) => moment(tick).split(" ")[0]);
  return ticks.map((tick, i) => {
    const time = moment(tick).split(" ")[1].slice(0, length);
    return i === 0 || days[i - 1] !== days[i] ? `${time}\n${days[i]}` : time;
  });
}

function legendEntry({ label, dashed }, i) {
  return make("li", {}, make("span", { class: `s${i + 1}${dashed ? " dashed" : ""}` }), label);
}
