// A table whose rows stay while their figures change, so that a selection, a scroll position and the focus stay too.

import { printable } from "./format.js";

export class Table {
  // columns: {title, text(row), value(row) to sort by, number, wide (not on phones), name, short, tip(row)}
  // sorted: [index of a column, 1 or -1], or null for the order of the rows
  constructor(element, columns, key, sorted = null) {
    this.columns = columns;
    this.key = key;
    this.sorted = sorted;
    this.rows = new Map();
    this.last = [];
    const head = element.createTHead().insertRow();
    this.heads = columns.map((column, index) => {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.className = classes(column);
      if (sorted) {
        const button = cell.appendChild(document.createElement("button"));
        button.type = "button";
        button.textContent = column.title;
        button.addEventListener("click", () => this.sortBy(index));
      } else {
        cell.textContent = column.title;
      }
      return cell;
    });
    this.body = element.appendChild(document.createElement("tbody"));
    this.markSorted();
  }

  sortBy(index) {
    const again = this.sorted[0] === index;
    this.sorted = [index, again ? -this.sorted[1] : this.columns[index].number ? -1 : 1];
    this.markSorted();
    this.show(this.last);
  }

  markSorted() {
    this.heads.forEach((cell, index) => {
      if (this.sorted?.[0] !== index) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", this.sorted[1] > 0 ? "ascending" : "descending");
    });
  }

  show(values) {
    this.last = values;
    if (this.sorted) {
      const [index, sign] = this.sorted;
      const of = this.columns[index].value ?? this.columns[index].text;
      values = [...values].sort((a, b) => sign * compare(of(a), of(b)) || compare(this.key(a), this.key(b)));
    }
    const rows = new Map();
    for (const value of values) {
      const key = this.key(value);
      const row = this.rows.get(key) ?? this.make();
      this.fill(row, value);
      rows.set(key, row);
    }
    for (const [key, row] of this.rows) if (!rows.has(key)) row.remove();
    let at = this.body.firstChild;
    for (const row of rows.values()) {
      if (row === at) at = at.nextSibling;
      else this.body.insertBefore(row, at);
    }
    this.rows = rows;
  }

  make() {
    const row = document.createElement("tr");
    this.columns.forEach((column, index) => {
      const cell = row.appendChild(document.createElement(index ? "td" : "th"));
      if (!index) cell.scope = "row";
      cell.className = classes(column);
    });
    return row;
  }

  fill(row, value) {
    this.columns.forEach((column, index) => {
      const cell = row.cells[index];
      const text = printable(column.text(value));
      if (cell.textContent !== text) cell.textContent = text;
      const tip = column.tip?.(value);
      if (tip && cell.title !== tip) cell.title = tip;
    });
  }
}

const classes = ({ number, wide, name, short }) =>
  [number && "number", wide && "wide", name && "name", short && "short"].filter(Boolean).join(" ");

const compare = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
