// The score of every window of layers, as the report draws it (app/report/plots/heatmap.py).

import {digits} from "./numbers.js";
import {WIDTH, element, picture, words} from "./svg.js";

const LEFT = 40, TOP = 22, RIGHT = WIDTH - 8, MOST_WITH_HINTS = 4000;
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37]];

export function drawScores({metric, better, table}, windows) {
  const cells = [];
  table.forEach((row, start) => row.forEach((score, column) => {
    if (score !== null) cells.push({start, size: column + 1, score});
  }));
  if (!cells.length) return null;
  const layers = table.length, cell = (RIGHT - LEFT) / layers;
  const tallest = Math.max(...cells.map(({size}) => size));
  const bottom = TOP + Math.max(tallest * cell, 60), gap = cell > 6 ? 1 : 0;
  const higher = better === "higher", shades = ranks(cells, higher);
  const squares = cells.map(({start, size, score}, index) => element("rect",
    {x: LEFT + start * cell, y: bottom - size * cell, width: cell - gap, height: cell - gap, fill: colour(shades[index])},
    ...(cells.length <= MOST_WITH_HINTS ? [element("title", {}, `${named(start, start + size)}: ${digits(score)}`)] : [])));
  const scored = new Set(cells.map(({start, size}) => `${start} ${size}`));
  return picture("scores", "Score of every window of layers", describe(cells, metric, higher, windows), bottom + 56,
    ...squares, ...windows.flatMap(window => outline(window, scored, cell, bottom)),
    ...axes(layers, tallest, cell, bottom), ...key(cells, higher, metric));
}

export function named(start, end) {
  return end - start === 1 ? `layer ${start}` : `layers ${start} to ${end - 1}`;
}

function describe(cells, metric, higher, windows) {
  const best = cells.reduce((a, b) => (higher ? b.score > a.score : b.score < a.score) ? b : a);
  const gone = windows.map(([start, end]) => named(start, end)).join(" and ");
  return `A triangle of ${cells.length} windows coloured by ${metric}; ` + (gone ? `outlined: ${gone}, which go.` :
    `the best of all is ${named(best.start, best.start + best.size)}.`);
}

// Each window's rank, 0 worst to 1 best: scores crowd near 1, and ranks tell them apart.
function ranks(cells, higher) {
  const sorted = [...new Set(cells.map(({score}) => score))].sort((a, b) => higher ? a - b : b - a);
  const place = new Map(sorted.map((score, index) => [score, index / Math.max(1, sorted.length - 1)]));
  return cells.map(({score}) => place.get(score));
}

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), index = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mixed = VIRIDIS[index].map((a, i) => Math.round(a + (VIRIDIS[index + 1][i] - a) * (place - index)));
  return `#${mixed.map(part => part.toString(16).padStart(2, "0")).join("")}`;
}

function outline([start, end], scored, cell, bottom) {
  const size = end - start, x = LEFT + start * cell, y = bottom - size * cell;
  const band = element("rect", {x, y: bottom + 3, width: size * cell - 1, height: 6, rx: 3, class: "fill cut"});
  if (!scored.has(`${start} ${size}`)) return [band];
  const around = {x: x - 1.5, y: y - 1.5, width: cell + 2, height: cell + 2, rx: 2};
  return [element("path", {d: `M${x.toFixed(1)} ${(y + cell + 2).toFixed(1)}V${(bottom + 3).toFixed(1)}`, class: "leader"}),
    element("rect", {...around, class: "outline-back"}), element("rect", {...around, class: "outline"}), band];
}

function axes(layers, tallest, cell, bottom) {
  const step = [1, 2, 4, 5, 10, 20, 50, 100].find(each => each * cell >= 26) ?? 1000, parts = [];
  parts.push(words(0, 10, "layers in the window", "start", "axis"));
  for (let layer = 0; layer < layers; layer += step)
    parts.push(words(LEFT + (layer + 0.5) * cell, bottom + 26, layer, "middle"));
  for (let size = step > 1 ? 0 : 1; size <= tallest; size += step)
    parts.push(words(LEFT - 8, bottom - (Math.max(size, 1) - 0.5) * cell + 4, Math.max(size, 1), "end"));
  parts.push(words((LEFT + RIGHT) / 2, bottom + 46, "first layer of the window", "middle", "axis"));
  return parts;
}

// In the corner that the triangle leaves free: colours with the scores at which they stand.
function key(cells, higher, metric) {
  const sorted = cells.map(({score}) => score).sort((a, b) => higher ? a - b : b - a);
  const width = 160, x = RIGHT - 172, y = TOP + 30, steps = 24;
  const parts = [words(x, y - 10, metric, "start", "axis")];
  for (let index = 0; index < steps; index++)
    parts.push(element("rect", {x: x + index * width / steps, y, width: width / steps + 0.4, height: 9, fill: colour(index / (steps - 1))}));
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]])
    parts.push(words(x + share * width, y + 24, +sorted[Math.round(share * (sorted.length - 1))].toPrecision(3), anchor));
  return parts;
}
