// Rates over the last hour as curves. Each has its own colour and its own dashes.

import { duration, rate } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const CURVES = [
  ["uploaded", "to peers"],
  ["peer", "from peers"],
  ["cdn", "from the CDN"],
];
const [LEFT, RIGHT, TOP, BOTTOM] = [74, 12, 10, 24];
const SPANS_MIN = [5, 15, 30, 60]; // the shortest that shows everything there is

export class Plot {
  constructor(element) {
    this.history = null;
    this.now = 0;
    this.pointed = null;
    this.svg = element.appendChild(make("svg", { role: "img" }));
    this.legend = element.appendChild(document.createElement("ul"));
    this.legend.className = "legend";
    this.values = CURVES.map(([name, title]) => {
      const item = this.legend.appendChild(document.createElement("li"));
      const sample = item.appendChild(make("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }));
      sample.append(make("line", { class: `curve ${name}`, x1: 2, y1: 4, x2: 26, y2: 4 }));
      item.append(`${title} `);
      return item.appendChild(document.createElement("b"));
    });
    this.when = this.legend.appendChild(document.createElement("li"));
    this.when.className = "when";
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  show(history) {
    this.history = history;
    this.draw();
  }

  point(x) {
    this.pointed = x;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!width || !this.history) return;
    const { fields, points } = this.history;
    const last = points.at(-1)?.[0] ?? 0;
    const recorded = last - (points[0]?.[0] ?? 0);
    const span = 60 * (SPANS_MIN.find((minutes) => 60 * minutes >= recorded) ?? 60);
    const top = nice(Math.max(1000, ...points.flatMap((point) => CURVES.map(([name]) => point[fields.indexOf(name)]))));
    const x = (at) => LEFT + (1 - (last - at) / span) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
    const parts = [];
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(part * top), y2: y(part * top) }));
      parts.push(text(LEFT - 8, y(part * top) + 4, "end", rate(part * top)));
    }
    const steps = width < 480 ? 2 : span === 300 ? 5 : 3;
    for (let step = 0; step <= steps; step += 1) {
      const minutes = (step / steps) * (span / 60);
      const anchor = step === 0 ? "end" : step === steps ? "start" : "middle";
      parts.push(text(x(last - minutes * 60), height - 6, anchor, step ? `${minutes} min ago` : "now"));
    }
    for (const [name] of CURVES) {
      const column = fields.indexOf(name);
      const line = points.map((point) => `${x(point[0]).toFixed(1)},${y(point[column]).toFixed(1)}`).join(" ");
      parts.push(make("polyline", { class: `curve ${name}`, points: line }));
    }
    const shown = this.nearest(points, x);
    if (shown && this.pointed !== null) {
      parts.push(make("line", { class: "cursor", x1: x(shown[0]), x2: x(shown[0]), y1: TOP, y2: height - BOTTOM }));
    }
    this.svg.replaceChildren(...parts);
    CURVES.forEach(([name], index) => {
      this.values[index].textContent = shown ? rate(shown[fields.indexOf(name)]) : "–";
    });
    this.when.textContent = this.pointed !== null && shown ? `${duration(last - shown[0])} ago` : "";
    const most = CURVES.map(([name, title]) => {
      const column = fields.indexOf(name);
      return `${title} ${rate(points.at(-1)?.[column] ?? 0)} now and ${rate(Math.max(0, ...points.map((p) => p[column])))} at most`;
    });
    this.svg.setAttribute("aria-label", `Rates over the last hour: ${most.join("; ")}`);
  }

  nearest(points, x) {
    if (this.pointed === null || !points.length) return points.at(-1);
    return points.reduce((a, b) => (Math.abs(x(b[0]) - this.pointed) < Math.abs(x(a[0]) - this.pointed) ? b : a));
  }
}

// The next number of 1, 2, 4 or 8 times a power of ten.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 8, 10].find((step) => step * power >= value);
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, anchor, content) {
  const element = make("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}
