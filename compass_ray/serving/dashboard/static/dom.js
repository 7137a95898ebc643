// Elements made once and changed in place, so that nothing that has the focus is ever replaced. Text goes in as text only.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A table in a box of its own that scrolls, reachable by keyboard. Columns: {head, kind: "number" | "long" | undefined}.
export class Table {
  constructor(box, { caption, label, columns, empty }) {
    this.columns = columns;
    this.empty = empty;
    this.rows = new Map();
    this.body = make("tbody");
    const heads = columns.map(({ head, kind }) => make("th", { scope: "col", class: kind === "number" ? kind : null }, head));
    const table = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.caption = table.caption;
    this.box = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? caption }, table);
    box.append(this.box);
  }

  // Rows: {key, cells: [text or {text, mark}]}; the first cell is the row's heading.
  show(rows) {
    const wanted = rows.length ? rows : [{ key: "", cells: [this.empty] }];
    const keys = new Set(wanted.map((row) => row.key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.remove(); this.rows.delete(key); }
    wanted.forEach((row, place) => {
      const element = this.rows.get(row.key) ?? this.added(row);
      if (this.body.children[place] !== element) this.body.insertBefore(element, this.body.children[place] ?? null);
      row.cells.forEach((cell, column) => this.fill(element.children[column], cell, this.columns[column].kind));
    });
  }

  added({ key, cells }) {
    const row = key === "" ? this.blank() : make("tr", {}, ...cells.map((_, i) => make(i ? "td" : "th", i ? {} : { scope: "row" })));
    this.rows.set(key, row);
    return row;
  }

  blank() {
    return make("tr", { class: "empty" }, make("td", { colspan: String(this.columns.length) }));
  }

  fill(element, cell, kind) {
    const { text, mark = null } = typeof cell === "object" ? cell : { text: cell };
    setText(element, text);
    const name = [kind, mark].filter(Boolean).join(" ");
    if (element.className !== name) element.className = name;
  }
}

// A list of terms and values, each with a line beneath it where there is more to say.
export class Numbers {
  constructor(list) {
    this.list = list;
    this.values = new Map();
  }

  show(pairs) {
    for (const [term, value, more = ""] of pairs) {
      if (!this.values.has(term)) this.values.set(term, this.added(term));
      const [shown, beneath] = this.values.get(term);
      setText(shown, value);
      setText(beneath, more);
      beneath.hidden = more === "";
    }
  }

  added(term) {
    const parts = [make("dd"), make("dd", { class: "more", hidden: "" })];
    this.list.append(make("div", {}, make("dt", {}, term), ...parts));
    return parts;
  }
}
