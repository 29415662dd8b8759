const D = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (element instanceof SVGElement ? !name.startsWith("on") : name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}
/** An element with properties, attributes (names with a dash or "role", "scope") and children. */
const make = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
/** An element of SVG; everything but handlers ("onclick") is an attribute. */
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS($(".symbols").namespaceURI, tag), attributes, children);

function choice(label, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) });
  for (const [key, text] of options) select.append(make("option", { value: key, selected: String(key) === String(value) }, text));
  return make("label", {}, label, select);
}

function toggle(label, id, value, change) {
  const box = make("input", { type: "checkbox", id, checked: value, onchange: () => change(box.checked) });
  return make("label", {}, label, box);
}

/** What is drawn anew on every change keeps the focus of the control with the same place in it. */
function redraw(box, ...children) {
  const all = () => $$("select, input, button, summary", box), at = all().indexOf(document.activeElement);
  box.replaceChildren(...children);
  if (at >= 0) all()[at]?.focus({ preventScroll: true });
}

/** A name that may be broken after "_", "/" and ".". */
const breakable = (text) => text.split(/(?<=[_/.])/).flatMap((part, index) => index ? [make("wbr"), part] : [part]);

/** Whole numbers in full, others with three to four significant digits. */
function number(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(size >= 1 ? 4 : 3)));
}
const probability = (value) => value < 1e-4 ? "< 0.0001" : value.toFixed(4);
/** The digits after the point of a number's text, and the invisible rest that aligns it with others on the point. */
const decimals = (text) => text.includes("e") ? 0 : text.split(".")[1]?.length ?? 0;
function aligned(text, most) {
  const missing = most - decimals(text);
  const rest = missing <= 0 || text.includes("e") ? "" : (text.includes(".") ? "" : ".") + "0".repeat(missing);
  return make("span", { className: "n", "data-pad": rest }, text);
}

function valueText([value, low, high]) {
  return number(value) + (low === undefined ? "" : ` (${number(low)} to ${number(high)})`);
}
/** A metric of a cell with its interval, and whether it is of few samples. */
const metricText = (cell, name) => valueText(cell.values[name]) + (cell.few.includes(name) ? ", few samples" : "");
/** A number of a cell: a metric, or a config key; undefined if it has none. */
const numberOf = (cell, name) => D.cells[cell].values[name]?.[0] ?? D.keys[name]?.[cell] ?? undefined;
const qualityOf = (metric) => D.qualities.find(({ name }) => name === metric);

let silence;
/** A message for a moment, read out by screen readers. */
function say(text) {
  const box = $("dialog[open] .toast") ?? $("body > .toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { box.hidden = true; }, 2500);
}

async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed here, for example in a frame
    const area = make("textarea", { value: text, className: "sr" }), before = document.activeElement;
    ($("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    before?.focus();
  }
  say(`${what} copied`);
}

function download(name, content) {
  const link = make("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function saveTable(name, rows) {
  const field = (value) => /[",\n\r]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
  download(name, new Blob([rows.map((row) => row.map(field).join(",") + "\n").join("")], { type: "text/csv" }));
}
