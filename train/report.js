"use strict";
// Draws the charts of a report from the numbers that stand in the page. Names are set as text only.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["none", "7 4", "2 3", "9 3 2 3"];
const all = JSON.parse(document.getElementById("numbers").textContent);

function make(parent, name, attributes = {}, words = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (words !== "") element.textContent = words;
  return parent.appendChild(element);
}

function add(parent, name, words = "", kind = "") {
  const element = document.createElement(name);
  element.textContent = words;
  if (kind) element.className = kind;
  return parent.appendChild(element);
}

const color = (group) => `var(--c${group % 8})`;
const dash = (group) => DASHES[Math.floor(group / 8) % DASHES.length];

function number(value) {
  if (value === null) return "unknown";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)} k`;
  return size && size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
}

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function extent(lists) {
  const known = lists.flat().filter((x) => x !== null);
  let low = known.reduce((a, b) => Math.min(a, b), Infinity);
  let high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (low === high) { const room = Math.abs(low) / 10 || 1; low -= room; high += room; }
  return known.length ? [low, high] : null;
}

// The frame of a chart: its scales, its rules and what stands at them.
function frame(place, height, xs, ys, xLabel, margin) {
  const width = Math.max(place.clientWidth, 200);
  const svg = make(place, "svg", { viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img" });
  const x = (v) => margin.left + ((v - xs[0]) / (xs[1] - xs[0])) * (width - margin.left - margin.right);
  const y = (v) => height - margin.bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (height - margin.top - margin.bottom);
  for (const t of ticks(...xs, Math.max(width / 110, 3))) {
    make(svg, "line", { x1: x(t), x2: x(t), y1: margin.top, y2: height - margin.bottom, class: "rule" });
    make(svg, "text", { x: x(t), y: height - margin.bottom + 16, "text-anchor": "middle" }, number(t));
  }
  make(svg, "text", { x: width - margin.right, y: height - 3, "text-anchor": "end" }, xLabel);
  return { svg, x, y, width, height, margin };
}

function rows(chart, ys) {
  for (const t of ticks(...ys, 5)) {
    make(chart.svg, "line", {
      x1: chart.margin.left, x2: chart.width - chart.margin.right, y1: chart.y(t), y2: chart.y(t), class: "rule",
    });
    make(chart.svg, "text", { x: chart.margin.left - 6, y: chart.y(t) + 4, "text-anchor": "end" }, number(t));
  }
}

function path(points) {
  let words = "", pen = "M";
  for (const [x, y] of points) {
    if (y === null) pen = "M";
    else { words += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`; pen = "L"; }
  }
  return words;
}

function lines(place, curves, names, xLabel, told) {
  const shown = curves.filter((c) => c.line);
  const xs = shown.length && extent(shown.map((c) => c.line.x));
  const ys = shown.length && extent(shown.flatMap((c) => [c.line.y, c.line.low || [], c.line.high || []]));
  if (!xs || !ys) return add(place, "p", "Nothing to draw: no numbers, or all the same.");
  const chart = frame(place, 300, xs, ys, xLabel, { left: 52, right: 12, top: 8, bottom: 36 });
  rows(chart, ys);
  const scale = (v) => (v === null ? null : chart.y(v));
  for (const { group, line } of shown) {
    if (line.low) {
      const known = line.x.map((_, i) => i).filter((i) => line.low[i] !== null);
      const edge = known.map((i) => [chart.x(line.x[i]), chart.y(line.high[i])]);
      const back = known.reverse().map((i) => [chart.x(line.x[i]), chart.y(line.low[i])]);
      if (edge.length) make(chart.svg, "path", { d: path([...edge, ...back]) + "Z", fill: color(group), class: "band" });
    }
    const d = path(line.x.map((v, i) => [chart.x(v), scale(line.y[i])]));
    make(chart.svg, "path", { d, stroke: color(group), "stroke-dasharray": dash(group), class: "curve" });
  }
  chart.svg.setAttribute("aria-label", `${told}; arrow keys tell the values`);
  look(place, chart, shown, names, xs, xLabel);
}

// A line under the pointer, or that the arrow keys move, and the values there.
function look(place, chart, shown, names, xs, xLabel) {
  const cross = make(chart.svg, "line", { y1: chart.margin.top, y2: chart.height - chart.margin.bottom, class: "cross" });
  const tip = add(place, "div", "", "tip");
  const stops = [...new Set(shown.flatMap((c) => c.line.x))].sort((a, b) => a - b);
  const apart = (x) => (x.length > 1 ? x[1] - x[0] : Infinity);
  let at = stops.length - 1;
  const hide = (hidden) => { cross.style.display = tip.style.display = hidden ? "none" : ""; };
  function tell() {
    const here = stops[at];
    hide(false);
    for (const end of ["x1", "x2"]) cross.setAttribute(end, chart.x(here));
    tip.replaceChildren();
    add(tip, "div", `${number(here)} ${xLabel}`);
    for (const { group, line } of shown) {
      const i = nearest(line.x, here);
      const over = Math.abs(line.x[i] - here) > 0.75 * apart(line.x); // it ended before, or began after
      if (line.y[i] === null || over) continue;
      const row = add(tip, "div");
      add(row, "b", String(group + 1), `badge c${group % 8}`);
      const band = line.low && line.low[i] !== null ? ` [${number(line.low[i])}, ${number(line.high[i])}]` : "";
      const n = Array.isArray(line.n) ? line.n[i] : line.n;
      row.append(` ${number(line.y[i])}${band} n=${n} ${names[group]}`);
    }
    const right = chart.x(here) < chart.width / 2;
    const left = chart.x(here) + (right ? 12 : -12 - tip.offsetWidth);
    tip.style.left = `${Math.min(Math.max(left, 0), chart.width - tip.offsetWidth)}px`;
  }
  chart.svg.addEventListener("pointermove", (event) => {
    const inside = event.clientX - chart.svg.getBoundingClientRect().left - chart.margin.left;
    const width = chart.width - chart.margin.left - chart.margin.right;
    at = nearest(stops, xs[0] + (inside / width) * (xs[1] - xs[0]));
    tell();
  });
  chart.svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    at = Math.min(Math.max(at + step, 0), stops.length - 1);
    tell();
    event.preventDefault();
  });
  for (const name of ["pointerleave", "blur"]) chart.svg.addEventListener(name, () => hide(true));
  hide(true);
}

function nearest(list, value) {
  let best = 0;
  list.forEach((x, i) => { if (Math.abs(x - value) < Math.abs(list[best] - value)) best = i; });
  return best;
}

function finals(place, groups, shown) {
  const those = shown.filter((i) => groups[i].iqm !== null);
  const xs = those.length && extent(those.flatMap((i) => [groups[i].iqm, groups[i].low, groups[i].high, ...groups[i].scores]));
  if (!xs) return add(place, "p", "No run of these has ended.");
  const step = Math.min(Math.max(254 / those.length, 30), 60);
  const height = 46 + step * those.length;
  const chart = frame(place, height, xs, [0, 1], "final return", { left: 34, right: 14, top: 4, bottom: 36 });
  those.forEach((i, row) => {
    const one = groups[i], y = 4 + step * (row + 0.5);
    const badge = make(chart.svg, "text", { x: 4, y: y + 4, style: `fill:${color(i)};font-weight:600` }, String(i + 1));
    const g = make(chart.svg, "g");
    if (one.low !== null)
      make(g, "line", { x1: chart.x(one.low), x2: chart.x(one.high), y1: y, y2: y, stroke: color(i), "stroke-width": 6, opacity: .35 });
    for (const score of one.scores)
      if (score !== null) make(g, "circle", { cx: chart.x(score), cy: y, r: 3, fill: "none", stroke: color(i) });
    make(g, "line", { x1: chart.x(one.iqm), x2: chart.x(one.iqm), y1: y - 9, y2: y + 9, stroke: color(i), "stroke-width": 3 });
    const band = one.low === null ? "" : `, 95 % interval ${number(one.low)} to ${number(one.high)} over ${one.over}`;
    const words = `${i + 1} ${one.label}: IQM ${number(one.iqm)}${band}; n=${one.seeds.length}`;
    make(g, "title", {}, words);
    make(badge, "title", {}, words);
    make(g, "rect", { x: 0, y: y - 13, width: chart.width, height: 26, fill: "transparent" });
  });
  chart.svg.setAttribute("aria-label", those.map((i) => `${groups[i].label}: ${number(groups[i].iqm)}`).join("; "));
}

function section(element) {
  const data = all[+element.dataset.number];
  const names = data.groups.map((group) => group.label);
  const buttons = [...element.querySelectorAll(".legend button")];
  const charts = [...element.querySelectorAll(".chart")];
  const select = document.createElement("select");
  select.setAttribute("aria-label", "Metric of the curve");
  for (const name of Object.keys(data.curves)) add(select, "option", name);
  const heading = charts[0].previousElementSibling;
  heading.className = "title";
  heading.append(select);
  function draw() {
    const shown = buttons.flatMap((b, i) => (b.getAttribute("aria-pressed") === "true" ? [i] : []));
    for (const place of charts) {
      place.replaceChildren();
      if (place.dataset.kind === "final") finals(place, data.groups, shown);
      else if (place.dataset.kind === "curve") {
        const found = data.curves[select.value] || [];
        lines(place, shown.map((group) => ({ group, line: found[group] })), names, data.unit, `${select.value} over ${data.unit}`);
      } else {
        const profile = data.profile || { x: [], lines: [] };
        const found = (group) => profile.lines[group] && { x: profile.x, ...profile.lines[group] };
        lines(place, shown.map((group) => ({ group, line: found(group) })), names, "final return", "share of runs above");
      }
    }
  }
  for (const button of buttons)
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      draw();
    });
  select.addEventListener("change", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) { width = element.clientWidth; draw(); }
  }).observe(element);
}

const root = document.documentElement;
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});
document.querySelectorAll("section").forEach(section);
