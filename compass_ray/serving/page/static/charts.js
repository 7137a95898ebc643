// A chart with what makes it readable without being seen: a heading, a sentence, a legend in text and a table of its numbers.

import { make, setText, Table } from "./dom.js";
import { moment } from "./format.js";

const HEIGHT = 220;
const dark = matchMedia("(prefers-color-scheme: dark)");

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Lines: {label, dashed}; at most three. `format` gives the text of a value, `rows` the table's rows from the data.
export class Chart {
  constructor(figure, { heading, table, lines, format, rows, marks = () => [] }) {
    this.lines = lines;
    this.format = format;
    this.rows = rows;
    this.marks = marks;
    this.data = [[], ...lines.map(() => [])];
    const title = make("h3", { id: `${figure.id}-heading` }, heading);
    this.sentence = make("p", { class: "note" });
    this.legend = make("ul", { class: "legend", "aria-hidden": "true" }, ...lines.map(legendEntry));
    this.plot = make("div", { class: "plot", role: "img" });
    this.readout = make("p", { class: "readout", "aria-hidden": "true" });
    this.details = make("details", {}, make("summary", {}, `${heading}: the numbers as a table`));
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
    setText(this.sentence, none ? "Nothing yet." : sentence);
    if (none) return;
    this.plot.setAttribute("aria-label", sentence);
    if (this.drawn) this.drawn.setData(this.drawnData());
    else this.redraw();
    this.fillTable();
  }

  // Columns beyond the lines are the table's only.
  drawnData() {
    return this.data.slice(0, this.lines.length + 1);
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
      label, stroke: colour(`--series-${i + 1}`), width: 2, dash: dashed ? [8, 5] : [], points: { show: false }, spanGaps: false,
    }));
    return {
      width: this.plot.clientWidth, height: HEIGHT, legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1e-9) * 1.1] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map(timeLabel) }, { ...axis, size: 62, values: (_, ticks) => ticks.map(this.format) }],
      series: [{}, ...series],
      hooks: { setCursor: [(u) => this.read(u.cursor.idx)], draw: [(u) => this.drawMarks(u)] },
    };
  }

  read(index) {
    const at = typeof index === "number" ? this.rows(this.data.map((column) => [column[index]]))[0] : null;
    const columns = this.table.columns.map(({ head }) => head);
    setText(this.readout, at ? at.cells.map((cell, i) => `${i ? columns[i] + " " : ""}${cell.text ?? cell}`).join(" · ") : "");
  }

  // Upright lines with a word, such as where another version went live.
  drawMarks(u) {
    const { ctx } = u;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--quiet");
    ctx.textAlign = "left";
    ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    for (const { time, word } of this.marks(this.data)) {
      const x = u.valToPos(time, "x", true);
      ctx.fillRect(x, u.bbox.top, devicePixelRatio, u.bbox.height);
      ctx.fillText(word, x + 4 * devicePixelRatio, u.bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  }
}

// The day stands under the first label and wherever it changes.
function timeLabel(seconds, place, ticks) {
  const [day, time] = moment(seconds).split(" ");
  const changed = place === 0 || moment(ticks[place - 1]).split(" ")[0] !== day;
  return changed ? `${time.slice(0, 5)}\n${day}` : time.slice(0, 5);
}

function legendEntry({ label, dashed }, i) {
  return make("li", {}, make("span", { class: `s${i + 1}${dashed ? " dashed" : ""}` }), label);
}
