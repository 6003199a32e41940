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

// An SVG element `width` pixels wide. `counts` are the tokens of `nTokens` at which the unit was
// on, one for each of `steps`.
function drawTimeline(steps, counts, nTokens, color, width) {
  const height = 200, left = 52, right = 14, top = 28, bottom = 44;
  const lastStep = steps[steps.length - 1];
  const highest = niceTop((100 * Math.max(...counts)) / nTokens);
  const span = logStep(lastStep) || 1;
  const x = (step) => left + ((width - left - right) * logStep(step)) / span;
  const y = (count) => top + (height - top - bottom) * (1 - (100 * count) / nTokens / highest);
  const say = (i) => `step ${steps[i].toLocaleString("en")}: on at ` +
    `${counts[i].toLocaleString("en")} of ${nTokens.toLocaleString("en")} tokens ` +
    `(${percent(counts[i] / nTokens)})`;

  const most = counts.indexOf(Math.max(...counts));
  const svg = svgElement("svg", {
    class: "timeline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Timeline. First, ${say(0)}; most, ${say(most)}; last, ${say(steps.length - 1)}.`,
  });
  for (const tick of [0, highest / 2, highest]) {
    const level = y((tick / 100) * nTokens);
    svg.append(
      svgElement("line", { x1: left, x2: width - right, y1: level, y2: level, stroke: "#ddd" }),
      svgElement("text", { x: left - 6, y: level + 4, "text-anchor": "end" },
        `${+tick.toPrecision(3)} %`),
    );
  }
  const ticks = [0];
  for (let tick = 1; tick <= lastStep; tick *= 4) ticks.push(tick);
  for (const tick of ticks) {
    svg.append(
      svgElement("line", {
        x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4, stroke: "#777",
      }),
      svgElement("text", { x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, tick),
    );
  }
  svg.append(
    svgElement("text", { x: 4, y: 12 }, "share of the probe's tokens at which it is on"),
    svgElement("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" },
      "training step"),
  );

  const points = steps.map((step, i) => `${x(step).toFixed(1)},${y(counts[i]).toFixed(1)}`);
  svg.append(svgElement("polyline", {
    points: points.join(" "), fill: "none", stroke: color, "stroke-width": 1.8,
  }));
  steps.forEach((step, i) => {
    const silent = counts[i] === 0; // drawn hollow
    const dot = svgElement("circle", {
      cx: x(step), cy: y(counts[i]), r: 3, stroke: color, fill: silent ? "#fff" : color,
    });
    dot.append(svgElement("title", {}, say(i)));
    svg.append(dot);
  });
  return svg;
}
