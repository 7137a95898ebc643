// Elements are created once and updated in place, so a focused element is never replaced. Text is inserted only as text.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// The options of a <select>, as [value, text]. What was chosen stays chosen, if it still exists.
export function setOptions(choice, options, preferred) {
  const present = [...choice.options].map((option) => [option.value, option.textContent].join());
  if (present.join("\n") === options.map((option) => option.join()).join("\n")) return;
  const chosen = choice.value || preferred;
  choice.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
  choice.value = options.some(([value]) => value === chosen) ? chosen : preferred;
}

// A table in a scrollable box that the keyboard can reach. Columns: {head, kind: "number" | "long" | undefined}.
// With `cards`, each row is a card on a small screen. The roles are explicit, because a table that is drawn as cards loses its own.
export class Table {
  constructor(box, { caption, label, columns, empty, cards = false }) {
    this.columns = columns;
    this.empty = empty;
    this.rows = new Map();
    this.body = make("tbody", { role: "rowgroup" });
    const heads = columns.map(({ head, kind }) =>
      make("th", { scope: "col", role: "columnheader", class: kind === "number" ? kind : null }, head));
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads));
    const table = make("table", { role: "table", class: cards ? "cards" : null }, make("caption", {}, caption), head, this.body);
    this.caption = table.caption;
    this.box = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? caption }, table);
    box.append(this.box);
  }

  // Rows: {key, cells: [text or {text, mark}]}; the first cell is the row's heading.
  show(rows) {
    const wanted = rows.length ? rows : [{ key: "", cells: [this.empty] }];
    const keys = new Set(wanted.map((row) => row.key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.remove(); this.rows.delete(key); }
    wanted.forEach((row, index) => {
      const element = this.rows.get(row.key) ?? this.added(row);
      if (this.body.children[index] !== element) this.body.insertBefore(element, this.body.children[index] ?? null);
      row.cells.forEach((cell, column) => this.fill(element.children[column], cell, this.columns[column].kind));
    });
  }

  added({ key, cells }) {
    const row = key === "" ? this.blank() : make("tr", { role: "row" }, ...cells.map((_, i) => this.cell(i)));
    this.rows.set(key, row);
    return row;
  }

  cell(column) {
    if (column === 0) return make("th", { scope: "row", role: "rowheader" });
    return make("td", { role: "cell", "data-head": this.columns[column].head, dir: this.columns[column].kind === "long" ? "auto" : null });
  }

  blank() {
    return make("tr", { role: "row", class: "empty" }, make("td", { role: "cell", colspan: String(this.columns.length) }));
  }

  fill(element, cell, kind) {
    const { text, mark = null } = typeof cell === "object" ? cell : { text: cell };
    setText(element, text);
    const name = [kind, mark].filter(Boolean).join(" ");
    if (element.className !== name) element.className = name;
  }
}

// A list of terms and values, with an optional detail line below each value.
export class Numbers {
  constructor(list) {
    this.list = list;
    this.values = new Map();
  }

  show(pairs) {
    for (const [term, value, detail = ""] of pairs) {
      if (!this.values.has(term)) this.values.set(term, this.added(term));
      const [valueCell, detailCell] = this.values.get(term);
      setText(valueCell, value);
      setText(detailCell, detail);
      detailCell.hidden = detail === "";
    }
  }

  added(term) {
    const parts = [make("dd"), make("dd", { class: "more", hidden: "" })];
    this.list.append(make("div", {}, make("dt", {}, term), ...parts));
    return parts;
  }
}

// A word for a POSIX shell.
export const quoted = (word) => (/^[\w@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
