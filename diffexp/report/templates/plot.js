// Axes of charts: scales, round numbers, text.

const COLOURS = 8, SHAPES = ["circle", "square", "triangle", "diamond", "down", "cross"];
const LOG_FROM = 8; // an axis is logarithmic if its largest value is so many times its smallest
const wantsLog = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= LOG_FROM;

function scale(values, start, end, log) {
  const low = Math.min(...values), high = Math.max(...values);
  let ends;
  if (log) {
    const margin = high > low ? (high / low) ** 0.05 : 2;
    ends = [low / margin, high * margin];
  } else {
    const margin = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    ends = [low - margin >= 0 && low - margin < 0.25 * high ? 0 : low - margin, high + margin];
  }
  const place = (value) => log ? Math.log(Math.max(value, 1e-300)) : value;
  const [from, to] = ends.map(place);
  const at = (value) => start + (end - start) * (place(value) - from) / (to - from);
  const back = (pixel) => {
    const value = from + (to - from) * (pixel - start) / (end - start);
    return log ? Math.exp(value) : value;
  };
  return Object.assign(at, { low: ends[0], high: ends[1], start, end, log, back, ticks: () => log ? logTicks(...ends) : ticks(...ends) });
}

function ticks(low, high, about = 6) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough * 0.999) ?? 10 * power;
  const found = [];
  for (let n = Math.ceil(low / step); n <= Math.floor(high / step); n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** 1, 2 and 5 times powers of ten; over many decades powers alone, about eight at most. */
function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), apart = Math.ceil((last - first + 1) / 8);
  const found = [];
  for (let power = first; power <= last; power++) {
    if (high / low < 2000) found.push(...[1, 2, 5].map((factor) => Number(`${factor}e${power}`)));
    else if (power % apart === 0) found.push(Number(`1e${power}`));
  }
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 1 ? inside : [low, high];
}

/** Ticks at the values themselves where these are few whole numbers, else round ones; none closer than `room` pixels. */
function placesOf(values, axis, room) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const whole = counts.size <= 16 && [...counts.keys()].every(Number.isInteger);
  const wanted = whole ? [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b) : axis.ticks();
  const shown = [];
  for (const value of wanted) if (shown.every((other) => Math.abs(axis(value) - axis(other)) >= room)) shown.push(value);
  return shown;
}

const tickText = (value) => value === 0 ? "0" : Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6 ? value.toExponential().replace("+", "") : String(Number(value.toPrecision(6)));

/** Points (x, y) that no other beats in y without a larger x, by x. */
function frontOf(points, higher) {
  const sign = higher ? -1 : 1, front = [];
  let best = Infinity;
  for (const point of [...points].sort((a, b) => a.x - b.x || sign * (a.y - b.y) || a.cell - b.cell)) {
    if (sign * point.y >= best) continue;
    best = sign * point.y;
    front.push(point);
  }
  return front;
}

/** A chart as a file: with its own style, markers and background. */
function svgFile(chart) {
  const copy = chart.cloneNode(true), [, , width, height] = chart.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  for (const element of $$("[tabindex]", copy)) for (const name of ["tabindex", "role", "aria-label"]) element.removeAttribute(name);
  const used = new Set($$("use", copy).map((mark) => mark.getAttribute("href")));
  const shapes = $$("defs > *", $(".symbols")).filter((shape) => used.has(`#${shape.id}`)).map((shape) => shape.cloneNode(true));
  copy.prepend(
    draw("style", {}, $('style[data-name="chart"]').textContent + "text { font-family: system-ui, sans-serif; }"),
    draw("defs", {}, ...shapes),
    draw("rect", { width: "100%", height: "100%", fill: "var(--card)" }));
  return new XMLSerializer().serializeToString(copy);
}

function savePicture(chart, name, kind) {
  const text = svgFile(chart), type = "image/svg+xml";
  if (kind === "svg") return download(`${name}.svg`, new Blob([text], { type }));
  const image = new Image(), [, , width, height] = chart.getAttribute("viewBox").split(" ").map(Number);
  image.onload = () => {
    const canvas = make("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
    canvas.toBlob((blob) => download(`${name}.png`, blob));
  };
  image.onerror = () => say("the picture cannot be made here; save it as SVG");
  image.src = `data:${type};charset=utf-8,${encodeURIComponent(text)}`;
}
