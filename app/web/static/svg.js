// Drawing in SVG, in the measures and classes of the report's plots (app/report/svg.py).

export const WIDTH = 440;

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== undefined) made.setAttribute(key, typeof value === "number" ? +value.toFixed(2) : value);
  made.append(...children);
  return made;
}

export function picture(name, title, description, height, ...children) {
  return element("svg", {role: "img", "aria-labelledby": `${name}-title ${name}-description`, viewBox: `0 0 ${WIDTH} ${height}`},
    element("title", {id: `${name}-title`}, title), element("desc", {id: `${name}-description`}, description), ...children);
}

export function words(x, y, text, anchor = "start", kind = undefined) {
  return element("text", {x, y, "text-anchor": anchor, class: kind}, `${text}`);
}

export function line(points, kind) {
  const written = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return element("polyline", {points: written, class: `line ${kind}`});
}

// Maps [low, high] to [start, end], evenly or by ratios; what lies outside is moved to the edge.
export function scale(low, high, start, end, log = false) {
  const of = log ? Math.log : value => value;
  const place = value => {
    const at = Math.min(Math.max(value, low), high);
    return start + (high > low ? (of(at) - of(low)) / (of(high) - of(low)) : 0.5) * (end - start);
  };
  place.ticks = (count = 5) => log ? logTicks(low, high, count) : niceTicks(low, high, count);
  place.middle = (start + end) / 2;
  return place;
}

function niceTicks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high * (1 + 1e-9); index++)
    found.push(+(index * step).toPrecision(12));
  return found;
}

function logTicks(low, high, count) {
  let found = [];
  for (const factors of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      found.push(...factors.map(factor => factor * 10 ** power).filter(tick => tick >= low * 0.999 && tick <= high * 1.001));
    if (found.length <= count + 1) break;
  }
  return found.length > 1 ? found : [low, high];
}

export function yAxis(down, left, right) {
  return down.ticks().flatMap(value => [
    element("line", {x1: left, x2: right, y1: down(value), y2: down(value), class: "grid"}),
    words(left - 6, down(value) + 4, +value.toPrecision(3), "end"),
  ]);
}

export function xAxis(across, bottom, label) {
  return [...across.ticks().map(value => words(across(value), bottom + 16, value.toLocaleString("en"), "middle")),
    words(across.middle, bottom + 34, label, "middle", "axis")];
}

export function legend(entries, x, y) {
  return entries.flatMap(([kind, name]) => {
    const made = [element("circle", {cx: x + 5, cy: y - 4, r: 5, class: `dot ${kind}`}), words(x + 14, y, name)];
    x += 26 + 7.7 * name.length;
    return made;
  });
}
