// Pairs.

const LISTED = 200;
const pairs = { axis: "any", cell: "any", real: false, sort: 6, down: false, all: false };
const columns = ["first", "second", "difference", "95 % interval", "p", "adjusted p", "better"];

function differing(first, second) {
  return D.axes.map((_, index) => index).filter((index) => D.cells[first].place[index] !== D.cells[second].place[index]);
}

function pairControls() {
  const box = $("#pair-controls"), set = (change) => { Object.assign(pairs, { all: false }, change); showPairs(); };
  box.replaceChildren(
    choice("Metric", D.qualities.map(({ name }) => [name, name]), state.metric, (metric) => choose({ metric })),
    choice("Differ only in", [["any", "anything"], ...D.axes.map((axis, index) => [index, axis.name])], pairs.axis, (axis) => set({ axis })),
    choice("One of them is", [["any", "any cell"], ...D.cells.map((cell, index) => [index, cell.label])], pairs.cell, (cell) => set({ cell })));
  const real = make("input", { type: "checkbox", checked: pairs.real, id: "only-real", onchange: () => set({ real: real.checked }) });
  box.append(make("label", {}, "Significant differences only", real));
}

function chosenPairs() {
  let rows = D.pairs[state.metric] || [];
  if (pairs.cell !== "any") rows = rows.filter(([first, second]) => [first, second].includes(Number(pairs.cell)));
  if (pairs.axis !== "any") rows = rows.filter(([first, second]) => differing(first, second).join() === pairs.axis);
  if (pairs.real) rows = rows.filter((row) => row[6] < 0.05);
  // Column 3 is the interval: by its width.
  const by = { 0: 0, 1: 1, 2: 2, 3: (row) => row[4] - row[3], 4: 5, 5: 6, 6: (row) => row[6] - Math.min(1, Math.abs(row[2])) * 1e-9 }[pairs.sort];
  const key = typeof by === "function" ? by : (row) => row[by];
  return [...rows].sort((a, b) => (key(a) - key(b)) * (pairs.down ? -1 : 1));
}

function showPairs() {
  const table = $("#pair-table"), quality = D.qualities.find(({ name }) => name === state.metric);
  const head = make("tr");
  columns.forEach((name, index) => {
    const button = make("button", { type: "button", onclick: () => {
      Object.assign(pairs, { sort: index, down: pairs.sort === index && !pairs.down });
      showPairs();
    } }, name);
    head.append(make("th", { scope: "col", "aria-sort": pairs.sort !== index ? "none" : pairs.down ? "descending" : "ascending" }, button));
  });
  const rows = chosenPairs(), body = make("tbody");
  for (const [first, second, difference, low, high, p, holm] of pairs.all ? rows : rows.slice(0, LISTED)) {
    const open = (cell) => make("td", {}, make("button", { type: "button", className: "link", onclick: () => view(cell, 0) }, D.cells[cell].label));
    const winner = (difference > 0) === quality.higher ? first : second;
    const told = holm < 0.05 ? make("span", { className: "real" }, D.cells[winner].label) : make("span", { className: "note" }, "not significant");
    const plus = difference > 0 ? "+" : "";
    body.append(make("tr", {}, open(first), open(second), make("td", { className: "value" }, plus + number(difference)),
      make("td", { className: "value" }, `${number(low)} to ${number(high)}`), make("td", { className: "value" }, probability(p)),
      make("td", { className: "value" }, probability(holm)), make("td", {}, told)));
  }
  if (!rows.length) {
    const why = (D.pairs[state.metric] || []).length ? "No such pair." : "Nothing to compare: this takes two finished cells with intervals, so at least 16 samples each.";
    body.append(make("tr", {}, make("td", { colSpan: columns.length }, why)));
  } else if (!pairs.all && rows.length > LISTED) {
    const more = make("button", { type: "button", className: "link", id: "all-pairs", onclick: () => { pairs.all = true; showPairs(); } }, `show all ${rows.length} pairs`);
    body.append(make("tr", {}, make("td", { colSpan: columns.length }, more)));
  }
  $("thead", table).replaceChildren(head);
  $("tbody", table).replaceWith(body);
}
