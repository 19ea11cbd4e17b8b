"use strict";
// The rows: unpacked from the page's JSON, searched, sorted, shown a page at a time. Text is set as text, never as markup.

const packed = JSON.parse(document.getElementById("data").textContent);
const rows = packed.rows.map(unpacked);
const PAGE = matchMedia("(max-width: 700px)").matches ? 25 : 100;

function unpacked(values, index) {
  const row = { index };
  let at = 0;
  for (const name of packed.texts) row[name] = packed.strings[values[at++]];
  row.shape = packed.strings[values[at++]];
  row.place = packed.strings[values[at++]];
  for (const name of packed.numbers) row[name] = number(values[at++]);
  for (const name of packed.judgements) {
    const found = values[at++];
    row[name] = found && { error: number(found[0]), limit: number(found[1]), ratio: number(found[2]) };
  }
  row.red = row.verdict === "misaligned" || row.verdict === "missing";
  row.excess = excess(row);
  row.sought = `${row.step} ${row.name} ${row.kind} ${row.verdict} ${row.reason} ${row.waived || ""}`.toLowerCase();
  return row;
}

function number(value) {
  return typeof value === "string" ? { inf: Infinity, "-inf": -Infinity, nan: NaN }[value] : value;
}

// How far a row is beyond what it is allowed, 1 at the limit; as in align.report.details.
function excess(row) {
  let worst = -1;
  for (const name of packed.judgements) {
    const found = row[name];
    if (!found) continue;
    const part = found.error === 0 ? 0 : found.error / found.limit;
    worst = Math.max(worst, Number.isNaN(part) ? Infinity : part);
  }
  return worst >= 0 ? worst : row.red ? Infinity : 0;
}

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A name that may be broken after its dots and strokes.
function breakable(parent, name) {
  for (const part of name.split(/(?<=[./])/)) parent.append(part, document.createElement("wbr"));
  return parent;
}

function digits(value) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  const small = value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5);
  return small ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

function judged(found) {
  if (!found) return "–";
  if (found.limit === 0) return found.error === 0 ? "equal" : `${digits(found.error)} off`;
  return `${digits(found.ratio)}×`;
}

function address(row) {
  const path = encodeURIComponent(row.name).replace(/%2F/g, "/");
  return `#row=${encodeURIComponent(row.step)}/${path}`;
}

const COLUMNS = [
  { key: "step", title: "step", order: (row) => row.index, text: (row) => row.step },
  { key: "name", title: "row", order: (row) => row.name, text: (row) => row.name },
  { key: "verdict", title: "verdict", order: (row) => row.verdict, text: (row) => row.verdict },
  { key: "excess", title: "of its limit", order: (row) => -row.excess, text: (row) => digits(row.excess) },
  { key: "meaning", title: "meaning (× noise)", order: (row) => -value(row.meaning), text: (row) => judged(row.meaning) },
  { key: "precision", title: "precision (× noise)", order: (row) => -value(row.precision), text: (row) => judged(row.precision) },
  { key: "max_abs", title: "greatest difference", order: (row) => -value(row.max_abs), text: (row) => digits(row.max_abs) },
  { key: "rel", title: "relative", order: (row) => -value(row.rel), text: (row) => digits(row.rel) },
];
const NUMERIC = new Set(["excess", "meaning", "precision", "max_abs", "rel"]);

function value(found) {
  const one = found && typeof found === "object" ? (found.ratio ?? -1) : (found ?? -1);
  return Number.isNaN(one) ? Infinity : one;
}

const table = {
  sort: "excess",
  reversed: false,
  module: "",
  view: rows,
  page: 0,
  selected: -1, // a place in the view
  opened: -1, // a row's index
  part: (id) => document.getElementById(id),

  // Which rows are shown, in which order.
  apply() {
    const words = this.part("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const step = this.part("step").value;
    const verdict = this.part("verdict").value;
    this.view = rows.filter(
      (row) =>
        (!step || row.step === step) &&
        (!verdict || row.verdict === verdict) &&
        (!this.module || within(row.module, this.module)) &&
        words.every((word) => row.sought.includes(word)),
    );
    const { order } = COLUMNS.find((column) => column.key === this.sort);
    const keyed = this.view.map((row) => [order(row), row]);
    const sign = this.reversed ? -1 : 1;
    keyed.sort(([a, x], [b, y]) => (a < b ? -sign : a > b ? sign : x.index - y.index));
    this.view = keyed.map(([, row]) => row);
    this.page = 0;
    this.selected = -1;
    this.show();
  },

  show() {
    const pages = Math.max(1, Math.ceil(this.view.length / PAGE));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const from = this.page * PAGE;
    const shown = this.view.slice(from, from + PAGE);
    const body = this.part("body");
    body.replaceChildren(...shown.flatMap((row, at) => this.lines(row, from + at)));
    if (!shown.length) body.append(empty());
    const red = this.view.reduce((count, row) => count + row.red, 0);
    this.part("count").textContent = `${red} red of ${this.view.length}`;
    this.part("page").textContent = `${shown.length ? from + 1 : 0}–${from + shown.length} of ${this.view.length}`;
    this.part("previous").disabled = this.page === 0;
    this.part("next").disabled = this.page === pages - 1;
    const chip = this.part("module");
    chip.hidden = !this.module;
    chip.textContent = `module ${this.module} ✕`;
    for (const head of this.part("columns").children) {
      const sorted = head.dataset.key === this.sort;
      head.setAttribute("aria-sort", sorted ? (this.reversed ? "descending" : "ascending") : "none");
    }
  },

  // A row's line, and what it opens to.
  lines(row, at) {
    const line = element("tr", "", { class: `row ${row.red ? "red" : ""}`, "data-at": at, "data-index": row.index });
    if (at === this.selected) line.setAttribute("aria-selected", "true");
    for (const column of COLUMNS) {
      const cell = element("td", "", { class: NUMERIC.has(column.key) ? "n" : `text ${column.key}-cell`, "data-title": column.title });
      if (column.key === "name") cell.append(breakable(element("a", "", { href: address(row) }), row.name));
      else if (column.key === "verdict") cell.append(element("span", row.verdict, { class: `verdict ${row.verdict}` }));
      else cell.textContent = column.text(row);
      line.append(cell);
    }
    if (row.index !== this.opened) return [line];
    const cell = element("td", "", { colspan: COLUMNS.length });
    cell.append(facts(row));
    const more = element("tr", "", { class: "more" });
    more.append(cell);
    return [line, more];
  },

  select(at) {
    if (!this.view.length) return;
    this.selected = Math.min(Math.max(at, 0), this.view.length - 1);
    this.page = Math.floor(this.selected / PAGE);
    this.show();
    this.reveal("nearest");
  },

  reveal(block) {
    this.part("body").querySelector("[aria-selected]")?.scrollIntoView({ block });
  },

  // Opens a row by its index; what hides it is taken away.
  open(index) {
    this.opened = index;
    let at = this.view.findIndex((row) => row.index === index);
    if (at < 0) {
      this.clear();
      at = this.view.findIndex((row) => row.index === index);
    }
    this.select(at);
    this.reveal("start");
  },

  close() {
    this.opened = -1;
    this.show();
  },

  clear(step = "", module = "") {
    this.part("search").value = "";
    this.part("step").value = step;
    this.part("verdict").value = "";
    this.module = module;
    this.apply();
  },
};

function empty() {
  const line = element("tr");
  line.append(element("td", "No row is like that.", { colspan: COLUMNS.length, class: "note" }));
  return line;
}

// Everything known about one row.
function facts(row) {
  const box = element("div", "", { class: "facts" });
  if (row.reason) box.append(element("p", row.reason, { class: row.red ? "reason red" : "reason" }));
  if (row.waived) box.append(element("p", `waived: ${row.waived}`, { class: "reason" }));
  const list = element("dl");
  const told = [
    ["kind", row.kind], ["type", row.dtype], ["shape", row.shape],
    ["greatest difference", row.max_abs === null ? "–" : `${digits(row.max_abs)}${row.place ? ` at ${row.place}` : ""}`],
    ["mean difference", digits(row.mean_abs)], ["relative (Frobenius)", digits(row.rel)],
    ["cosine", row.cosine === null ? "–" : String(row.cosine)], ["ulp", digits(row.ulp)],
    ["noise (rms)", digits(row.noise)], ["smallest tolerance that passes", digits(row.min_tolerance)],
    ["matched by", row.matched_by ?? "–"],
  ];
  for (const name of packed.judgements) {
    const found = row[name];
    if (found) told.push([name, `error ${digits(found.error)}, limit ${digits(found.limit)}, ${judged(found)}${found.limit ? " noise" : ""}`]);
  }
  for (const [name, text] of told) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", text));
    list.append(pair);
  }
  box.append(list);
  const map = packed.details[row.index];
  if (map) box.append(errorMap(map));
  return box;
}
