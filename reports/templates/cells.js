"use strict";
// What the table of cells knows, without a page: order, filters, and lines of CSV.
class Cells {
  static #collator = new Intl.Collator("en", { numeric: true });

  constructor(table) {
    this.columns = table.columns;
    this.order = Array.from({ length: table.rows }, (_, row) => row);
    this.shown = this.order;
    this.keep = () => true;
    for (const column of this.columns) column.ranks = null;
  }

  // Return a rank for each distinct value of a column; -1 for an empty one.
  #ranks(column) {
    if (column.ranks) return column.ranks;
    const { texts, values } = column;
    const there = [...texts.keys()].filter(i => texts[i] !== "");
    there.sort((a, b) =>
      (values ? values[a] - values[b] : Cells.#collator.compare(texts[a], texts[b])));
    column.ranks = new Int32Array(texts.length).fill(-1);
    there.forEach((place, rank) => {
      const before = there[rank - 1];
      const tie = values && rank && values[before] === values[place];
      column.ranks[place] = tie ? column.ranks[before] : rank;
    });
    return column.ranks;
  }

  // Empty values stay at the end both ways; equal ones keep the order that they had.
  sort(column, down) {
    const ranks = this.#ranks(column), { at } = column, sign = down ? -1 : 1;
    this.order.sort((a, b) => {
      const x = ranks[at[a]], y = ranks[at[b]];
      return x < 0 || y < 0 ? (x < 0) - (y < 0) : sign * (x - y);
    });
    this.shown = this.order.filter(this.keep);
  }

  // Show the rows that every test keeps; a test is [column, a yes or no for each distinct value].
  // Each of the words must occur in a row, in whatever column.
  filter(tests, words) {
    const named = this.columns.filter(column => column.name);
    const found = words.map(word => named.map(({ at, texts }) =>
      [at, texts.map(text => text.toLowerCase().includes(word))]));
    this.keep = row =>
      tests.every(([{ at }, fits]) => fits[at[row]]) &&
      found.every(columns => columns.some(([at, has]) => has[at[row]]));
    this.shown = this.order.filter(this.keep);
  }

  // Return the shown rows under the names, and with the numbers, that cells.csv has.
  csv() {
    const saved = this.columns.filter(column => column.csv);
    const quoted = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const fields = saved.map(({ texts, values }) =>
      (values ?? texts).map(value => quoted(String(value ?? ""))));
    const lines = this.shown.map(row => saved.map(({ at }, i) => fields[i][at[row]]).join(","));
    return [saved.map(column => column.csv).join(","), ...lines, ""].join("\n");
  }
}
