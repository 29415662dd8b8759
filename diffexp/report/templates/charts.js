// The chart: any number of the cells over any other, and the best cells within a budget.

Object.assign(defaults, {
  metric: D.qualities[0]?.name ?? D.metrics.find((name) => name !== D.cost) ?? "", x: D.cost, colour: "", logx: "", logy: "", intervals: "", hidden: "",
  condition: "",
});
const CHART_KEYS = ["metric", "x", "colour", "logx", "logy", "intervals", "hidden", "condition", "pick."];
const STYLES = 16; // up to so many lines each have a style of their own
const INTERVALS = 24; // up to so many lines are drawn with intervals, unless that is chosen
const FRONT = "Pareto front";
const chartNow = { curves: [], points: [] };

const isWords = (name) => axisOf.has(name) && !(name in D.keys) && !D.metrics.includes(name);
const isSetting = (name) => !(name in D.costs) && (axisOf.has(name) || name in D.keys);
const xOf = (cell, name) => isWords(name) ? D.cells[cell].place[axisOf.get(name)] : numberOf(cell, name);
const titleOf = (name) => {
  const quality = qualityOf(name);
  return (D.costs[name] ?? name) + (quality ? ` (${quality.higher ? "higher" : "lower"} is better)` : "");
};

/** The lines of the chart: cells that differ only in x, or in what they may cost. */
function curvesOf(metric, x) {
  const points = D.cells.map((cell, index) => index)
    .filter((index) => D.cells[index].status === "done" && D.cells[index].values[metric] && inCondition(index) && xOf(index, x) !== undefined)
    .map((index) => {
      const [y, low, high] = D.cells[index].values[metric];
      return { cell: index, x: xOf(index, x), y, low, high };
    });
  const apart = D.axes.map((axis, index) => index).filter((index) => D.axes[index].name !== x && (isSetting(x) || !D.axes[index].limits));
  const lines = new Map();
  for (const point of points) {
    const key = apart.map((axis) => D.cells[point.cell].place[axis]).join();
    if (!lines.has(key)) lines.set(key, []);
    lines.get(key).push(point);
  }
  const phrase = (axis, cell) => D.axes[axis].phrases[D.cells[cell].place[axis]];
  const colour = axisOf.get(get("colour")) ?? (lines.size <= STYLES || !apart.length ? null : apart.find((axis) => D.axes[axis].name === "scheduler") ?? apart[0]);
  const styles = new Map();
  return [...lines.values()].map((own) => {
    const name = apart.map((axis) => phrase(axis, own[0].cell)).filter(Boolean).join(" · ") || "all cells";
    const look = colour === null ? name : phrase(colour, own[0].cell) || `no ${D.axes[colour].name}`;
    // A look of one axis is the same whatever cells are shown.
    if (!styles.has(look)) styles.set(look, colour === null ? styles.size : D.cells[own[0].cell].place[colour]);
    return { name, look, style: styles.get(look), points: own.sort((a, b) => a.x - b.x) };
  });
}

const hiddenLooks = () => new Set(getData("hidden", []));
const shownCurves = () => chartNow.curves.filter((curve) => !hiddenLooks().has(curve.look));

/** The Pareto fronts of the shown points, one for each condition: only cells of the same one are ranked. */
function frontsOf(curves, metric, x) {
  const quality = qualityOf(metric);
  if (!quality || !(x in D.costs)) return [];
  const groups = new Map();
  for (const point of curves.flatMap((curve) => curve.points)) {
    if (D.cells[point.cell].few.includes(metric)) continue;
    const own = D.cells[point.cell].condition;
    groups.set(own, [...(groups.get(own) ?? []), point]);
  }
  return [...groups.values()].map((points) => frontOf(points, quality.higher));
}

const withIntervals = () => get("intervals") === "" ? shownCurves().length <= INTERVALS : get("intervals") === "1";

const mark = (style, attributes = {}) => draw("use", { href: `#m-${SHAPES[Math.floor(style / COLOURS) % SHAPES.length]}`, ...attributes });

/** Lines of at most `most` letters. */
function wrapped(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length >= most) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines;
}

function drawChart(curves, width, height, legend) {
  const [metric, x] = [get("metric"), get("x")], narrow = width < 560;
  const points = curves.flatMap((curve) => curve.points), letters = width / 8;
  const under = [D.common, get("condition")].filter(Boolean).join(" · ");
  const heading = [...wrapped(`${metric} over ${D.short[x] ?? x}`, letters).map((text) => ["heading", text]), ...wrapped(under, letters).map((text) => ["note", text])];
  const top = 10 + 18 * heading.length, left = narrow ? 54 : 74, bottom = 52;
  const logx = get("logx") === "" ? !isWords(x) && wantsLog(points.map((p) => p.x)) : get("logx") === "1";
  const logy = get("logy") === "" ? wantsLog(points.map((p) => p.y)) : get("logy") === "1";
  const fits = points.filter((p) => (!logx || p.x > 0) && (!logy || p.y > 0));
  chartNow.points = fits;
  Object.assign(chartNow, { logx, logy, off: points.length - fits.length });
  const fronts = frontsOf(curves, metric, x).filter((front) => front.length > 1);
  const rows = legend ? legendRows([...curves, ...(fronts.length ? [{ look: FRONT, style: 0 }] : [])], width - 20) : [];
  const chart = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height + (rows.length ? 24 * (rows.at(-1).row + 1) + 10 : 0)}`, role: "group", "aria-label": `${titleOf(metric)} over ${titleOf(x)}: ${fits.length} cells in ${curves.length} lines` });
  heading.forEach(([style, text], row) => chart.append(draw("text", { class: style, x: legend || !narrow ? left : 8, y: 16 + 18 * row }, text)));
  if (!fits.length) return chart;
  const floor = logy ? Math.min(...fits.map((p) => p.y)) / 3 : -Infinity; // of intervals that reach to 0, a part is shown
  const bars = withIntervals() ? fits.filter((p) => p.low !== undefined) : [];
  const ys = scale([...fits.map((p) => p.y), ...bars.flatMap((p) => [Math.max(p.low, floor), p.high])], height - bottom, top + 6, logy);
  const xs = scale(fits.map((p) => p.x), left, width - 14, logx);
  drawAxes(chart, xs, ys, { metric, x, height, left, narrow, points: fits });
  const kept = new Set(fits), ranked = new Set();
  for (const front of frontsOf(curves.map((curve) => ({ ...curve, points: curve.points.filter((p) => kept.has(p)) })), metric, x)) {
    for (const point of front) ranked.add(point.cell);
    if (front.length > 1) chart.append(draw("path", { class: "front", d: front.map((p, i) => i ? `H${xs(p.x).toFixed(1)}V${ys(p.y).toFixed(1)}` : `M${xs(p.x).toFixed(1)} ${ys(p.y).toFixed(1)}`).join("") }));
  }
  const picked = selections();
  for (const curve of curves) chart.append(drawCurve(curve, kept, xs, ys, bars, ranked, picked));
  for (const { row, left: at, curve } of rows) {
    const entry = draw("g", { class: `series c${curve.style % COLOURS}`, transform: `translate(${at} ${height + 14 + 24 * row})` });
    if (curve.look === FRONT) entry.append(draw("path", { class: "front", d: "M-8 0H8" }), draw("text", { x: 12, y: 5 }, FRONT));
    else entry.append(mark(curve.style), draw("text", { x: 12, y: 5 }, curve.look));
    chart.append(entry);
  }
  return chart;
}

function drawAxes(chart, xs, ys, { metric, x, height, left, narrow, points }) {
  const words = isWords(x) ? D.axes[axisOf.get(x)].values : null;
  const label = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
  const places = words ? [...new Set(points.map((p) => p.x))] : placesOf(points.map((p) => p.x), xs, narrow ? 30 : 36);
  const room = words ? Math.max(3, Math.floor((xs.end - xs.start) / places.length / 8)) : 20;
  const grid = draw("g", { class: "axes", "aria-hidden": "true" });
  for (const value of places) {
    const at = xs(value).toFixed(1);
    grid.append(draw("path", { class: "line", d: `M${at} ${ys.start}V${ys.end}` }));
    grid.append(draw("text", { x: at, y: ys.start, dy: "1.3em", "text-anchor": "middle" }, words ? label(words[value], room) : tickText(value)));
  }
  for (const value of ys.ticks()) {
    const at = ys(value).toFixed(1);
    grid.append(draw("path", { class: "line", d: `M${xs.start} ${at}H${xs.end}` }));
    grid.append(draw("text", { x: left - 6, y: at, dy: ".35em", "text-anchor": "end" }, tickText(value)));
  }
  const most = (xs.end - xs.start) / 7;
  grid.append(draw("text", { class: "label", x: (xs.start + xs.end) / 2, y: height - 8, "text-anchor": "middle" }, label(titleOf(x), most)));
  if (!narrow) grid.append(draw("text", { class: "label", transform: `translate(15 ${(ys.start + ys.end) / 2}) rotate(-90)`, "text-anchor": "middle" }, label(titleOf(metric), 44)));
  chart.append(grid);
}

function drawCurve(curve, kept, xs, ys, bars, ranked, picked) {
  const own = curve.points.filter((p) => kept.has(p)), at = (p) => `${xs(p.x).toFixed(1)} ${ys(p.y).toFixed(1)}`;
  const ends = own.filter((p) => bars.includes(p)).map((p) => [xs(p.x).toFixed(1), ys(Math.max(p.low, ys.low)).toFixed(1), ys(p.high).toFixed(1)]);
  const group = draw("g", { class: `series c${curve.style % COLOURS}`, "data-style": curve.style });
  const different = new Set(own.map((p) => p.x)).size === own.length; // of several points at one x there is no line
  if (ends.length > 1 && different) group.append(draw("path", { class: "band", d: `M${[...ends.map(([a, low]) => `${a} ${low}`), ...[...ends].reverse().map(([a, , high]) => `${a} ${high}`)].join("L")}Z` }));
  if (own.length > 1 && different) group.append(draw("path", { class: "join", d: `M${own.map(at).join("L")}` }));
  if (ends.length) group.append(draw("path", { class: "bars", d: ends.map(([a, low, high]) => `M${a} ${low}V${high}`).join("") }));
  for (const p of own) {
    const text = `${D.cells[p.cell].label}: ${metricText(D.cells[p.cell], get("metric"))}`;
    const classes = [ranked.has(p.cell) ? "on-front" : "", isSelected(p.cell, picked) ? "" : "out"].filter(Boolean).join(" ");
    group.append(mark(curve.style, { x: xs(p.x).toFixed(1), y: ys(p.y).toFixed(1), "data-cell": p.cell, role: "button", tabindex: -1, "aria-label": text, class: classes }));
  }
  return group;
}

/** Where each look of a legend is: as many in a row as fit. */
function legendRows(curves, width) {
  const looks = [...new Map(curves.map((curve) => [curve.look, curve])).values()], found = [];
  let row = 0, left = 24;
  for (const curve of looks) {
    const room = 34 + 7.6 * curve.look.length;
    if (left > 24 && left + room > width) [row, left] = [row + 1, 24];
    found.push({ row, left, curve });
    left += room;
  }
  return found;
}
