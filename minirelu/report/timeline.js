"use strict";

// A unit's timeline: at what share of the probe's tokens it was on, over the steps of training.

const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function percent(share) {
  const x = 100 * share;
  // tenths as everywhere in the report; more where they would hide that it is not nothing
  return `${x === 0 || x >= 1 ? x.toFixed(1) : x.toPrecision(2)} %`;
}

// As in the figures: logarithmic from step 1 on, with room for step 0.
function logStep(step) {
  return step <= 1 ? step / 2 : 0.5 + Math.log10(step);
}

// The least of 1, 2, 5, 10, 20 ... 100 that is not below x.
function niceTop(x) {
  if (x <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(x));
  return Math.min(100, [1, 2, 5, 10].map((n) => n * power).find((top) => top >= x) ?? 100);
}

// Axes on which to draw, `width` pixels wide: steps, and a quantity from `low` to `high` that is
// written at `ticks`, [value, text] each. Returns the SVG element, and where a step and a value are.
function axes(width, height, lastStep, [low, high], ticks, title, description) {
  const left = 52, right = 14, top = 28, bottom = 44;
  const span = logStep(lastStep) || 1;
  const x = (step) => left + ((width - left - right) * logStep(step)) / span;
  const y = (v) => top + ((height - top - bottom) * (high - v)) / (high - low || 1);
  const svg = svgElement("svg", {
    class: "timeline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": description,
  });
  for (const [value, text] of ticks) {
    const level = y(value);
    svg.append(
      svgElement("line", { x1: left, x2: width - right, y1: level, y2: level, stroke: "#ddd" }),
      svgElement("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, text),
    );
  }
  const steps = [0];
  for (let tick = 1; tick <= lastStep; tick *= 4) steps.push(tick);
  for (const tick of steps) {
    svg.append(
      svgElement("line", {
        x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4, stroke: "#777",
      }),
      svgElement("text", { x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, tick),
    );
  }
  svg.append(
    svgElement("text", { x: 4, y: 12 }, title),
    svgElement("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" },
      "training step"),
  );
  return { svg, x, y };
}

// A line through values of `steps`, with a dot on each, hollow where `isHollow`; `say` describes one.
function drawLine({ svg, x, y }, steps, values, color, isHollow, say) {
  const points = steps.map((step, i) => `${x(step).toFixed(1)},${y(values[i]).toFixed(1)}`);
  svg.append(svgElement("polyline", {
    points: points.join(" "), fill: "none", stroke: color, "stroke-width": 1.8,
  }));
  steps.forEach((step, i) => {
    const dot = svgElement("circle", {
      cx: x(step), cy: y(values[i]), r: 3, stroke: color, fill: isHollow(values[i]) ? "#fff" : color,
    });
    dot.append(svgElement("title", {}, say(i)));
    svg.append(dot);
  });
  return svg;
}

// `counts` are the tokens of `nTokens` at which a unit was on, one for each of `steps`.
function drawTimeline(steps, counts, nTokens, color, width) {
  const shares = counts.map((n) => (100 * n) / nTokens);
  const highest = niceTop(Math.max(...shares));
  const say = (i) => `step ${steps[i].toLocaleString("en")}: on at ` +
    `${counts[i].toLocaleString("en")} of ${nTokens.toLocaleString("en")} tokens ` +
    `(${percent(counts[i] / nTokens)})`;
  const most = counts.indexOf(Math.max(...counts));
  const on = axes(
    width, 200, steps[steps.length - 1], [0, highest],
    [0, highest / 2, highest].map((tick) => [tick, `${+tick.toPrecision(3)} %`]),
    "share of the probe's tokens at which it is on",
    `Timeline. First, ${say(0)}; most, ${say(most)}; last, ${say(steps.length - 1)}.`,
  );
  return drawLine(on, steps, shares, color, (share) => share === 0, say);
}

// A unit's margins at `steps`, grey where it was dead, with the axis of a timeline up to `lastStep`.
// `deaths` are triples of steps: last on, first silent, on again (or -1).
function drawMargin(steps, margins, deaths, lastStep, color, width) {
  const range = [Math.min(0, ...margins), Math.max(0, ...margins)];
  const say = (i) => `step ${steps[i].toLocaleString("en")}: margin ${margins[i]}`;
  const apart = (range[1] - range[0]) / 6; // of numbers that do not overlap
  const ticks = [0, ...range.filter((v) => Math.abs(v) > apart)].map((v) => [v, v]);
  const on = axes(
    width, 160, lastStep, range, ticks,
    "margin: largest pre-activation (grey: dead)",
    `Margin. First, ${say(0)}; last, ${say(steps.length - 1)}.`,
  );
  for (let at = 0; at < deaths.length; at += 3) {
    const [from, to] = [on.x(deaths[at + 1]), on.x(deaths[at + 2] < 0 ? lastStep : deaths[at + 2])];
    const [top, bottom] = [on.y(range[1]), on.y(range[0])];
    on.svg.prepend(svgElement("rect", {
      x: from, y: top, width: to - from, height: bottom - top, fill: "#e4e4e4",
    }));
  }
  return drawLine(on, steps, margins, color, (margin) => margin <= 0, say);
}
