// What is chosen on the page, as texts by name. The part of the address after # holds whatever is not the default.

const defaults = {};
const chosen = new Map();
const listeners = [];

const get = (name) => chosen.get(name) ?? defaults[name] ?? "";
/** A list or an object that is chosen, kept as JSON; `other` if nothing is, or nothing readable. */
function getData(name, other) {
  try {
    return JSON.parse(get(name)) ?? other;
  } catch {
    return other;
  }
}

/** Call `act` whenever one of these names changes; a name that ends in a point stands for all that begin with it. */
function on(names, act) {
  listeners.push([names, act]);
}

function announce(names) {
  const concerns = (own) => names.some((name) => own.endsWith(".") ? name.startsWith(own) : name === own);
  for (const [own, act] of listeners) if (own.some(concerns)) act(names);
}

function put(changes) {
  const changed = Object.keys(changes).filter((name) => get(name) !== String(changes[name]));
  for (const name of changed) {
    if (String(changes[name]) === (defaults[name] ?? "")) chosen.delete(name);
    else chosen.set(name, String(changes[name]));
  }
  if (!changed.length) return;
  const hash = chosen.size ? `#${new URLSearchParams([...chosen])}` : "";
  try {
    history.replaceState(null, "", hash || location.pathname + location.search);
  } catch { /* a page inside a frame has no address of its own */ }
  announce(changed);
}

function readAddress() {
  const text = location.hash.slice(1), before = new Map(chosen);
  if (text && !text.includes("=")) return; // the name of a section
  chosen.clear();
  for (const [name, value] of new URLSearchParams(text)) chosen.set(name, value);
  const changed = [...new Set([...before.keys(), ...chosen.keys()])].filter((name) => before.get(name) !== chosen.get(name));
  if (changed.length) announce(changed);
}

function setUpAddress() {
  addEventListener("hashchange", readAddress);
  for (const link of $$('nav a[href^="#"], .skip')) { // a section is no part of the state
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = $(link.getAttribute("href"));
      target.scrollIntoView();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
    });
  }
}

// Selected cells: those with one of the chosen values on each axis, and between the chosen ends of each number.

const axisOf = new Map(D.axes.map((axis, index) => [axis.name, index]));
const selections = () => [...chosen].filter(([name]) => name.startsWith("pick.")).map(([name]) => [name.slice(5), getData(name, null)]).filter(([, kept]) => Array.isArray(kept));

function isSelected(cell, kept = selections()) {
  return kept.every(([name, picked]) => {
    if (axisOf.has(name)) return picked.includes(D.axes[axisOf.get(name)].values[D.cells[cell].place[axisOf.get(name)]]);
    const value = numberOf(cell, name);
    return value !== undefined && value >= picked[0] && value <= picked[1];
  });
}

function showSelection() {
  const kept = selections(), box = $("#selection");
  box.hidden = !kept.length;
  const count = D.cells.filter((_, cell) => isSelected(cell, kept)).length;
  const clear = make("button", { type: "button", className: "link", id: "clear-selection", onclick: () => put(Object.fromEntries(kept.map(([name]) => [`pick.${name}`, ""]))) }, "clear");
  box.replaceChildren(`${count} of ${D.cells.length} cells selected · `, clear);
}

// Conditions: cells of different ones are shown together, but never ranked against each other.

const inCondition = (cell) => get("condition") === "" || D.conditions[D.cells[cell].condition] === get("condition");
/** For a metric, the best cell of each condition as `best`, those not significantly different from it as `tie`. */
const marks = new Map();
function markOf(cell, metric) {
  if (!marks.has(metric)) {
    const found = new Map();
    for (const { best, ties, alone, compared } of D.best[metric] ?? []) {
      if (alone || !compared) continue;
      found.set(best, "best");
      for (const tie of ties) found.set(tie, "tie");
    }
    marks.set(metric, found);
  }
  return marks.get(metric).get(cell);
}
