// The losses of training while it goes on: a panel per phase, because their units differ.

import {digits} from "./numbers.js";
import {WIDTH, element, legend, line, picture, scale, words, xAxis, yAxis} from "./svg.js";

const LEFT = 52, TOP = 44, RIGHT = WIDTH - 12, HEIGHT = 190, BELOW = 56;
const LOG_FROM = 4; // a loss that falls by this factor is drawn by ratios
const MOST_PANELS = 6;

export function drawCurves(course) {
  const curves = [...course.curves.values()].filter(curve => curve.loss.length + curve.held.length > 1).slice(-MOST_PANELS);
  if (!curves.length) return null;
  const panel = TOP + HEIGHT + BELOW;
  return picture("loss", "Training and held-out loss", caption(course), panel * curves.length - 12,
    ...curves.flatMap((curve, index) => drawPanel(curve, index * panel)));
}

export function caption(course) {
  const curve = [...course.curves.values()].at(-1);
  if (!curve || !curve.held.length) return "Loss over the steps of training.";
  const [first, last] = [curve.held[0], curve.held.at(-1)];
  const best = Math.min(...curve.held.map(([, loss]) => loss));
  if (first === last) return `Held-out ${curve.name}: ${digits(last[1])} before training.`;
  return `Held-out ${curve.name}: from ${digits(first[1])} to ${digits(best)}, on sequences that are not trained on.`;
}

function drawPanel(curve, offset) {
  const all = [...curve.loss, ...curve.held], values = all.map(([, loss]) => loss);
  let low = Math.min(...values), high = Math.max(...values);
  const log = low > 0 && high / low >= LOG_FROM;
  if (log) [low, high] = [low * 0.92, high * 1.08];
  else [low, high] = [low < 0.5 * high ? Math.min(0, low) : low, high * 1.03];
  const top = offset + TOP, bottom = top + HEIGHT;
  const down = scale(low, high, bottom, top, log);
  const across = scale(0, Math.max(curve.steps, ...all.map(([step]) => step)), LEFT, RIGHT);
  const placed = points => points.map(([step, loss]) => [across(step), down(loss)]);
  return [
    ...yAxis(down, LEFT, RIGHT), ...xAxis(across, bottom, "step"),
    line(placed(curve.loss), "soft"), line(placed(curve.held), "pruned"),
    ...curve.held.map(([step, loss]) => element("circle", {cx: across(step), cy: down(loss), r: 3.5, class: "dot pruned"},
      element("title", {}, `step ${step}: held-out loss ${digits(loss)}`))),
    ...legend([["soft", curve.name], ["pruned", "held out"]], LEFT, offset + 14),
    ...(curve.loss.length ? [words(RIGHT, offset + 14, digits(curve.loss.at(-1)[1]), "end", "value")] : []),
  ];
}
