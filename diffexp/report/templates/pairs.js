// Pairs.

const LISTED = 200;
Object.assign(defaults, { "pair.with": "", "pair.significant": "0", "pair.sort": "6", "pair.all": "0" });
const columns = ["first", "second", "difference", "95 % interval", "p", "adjusted p", "better"];

function differing(first, second) {
  return D.axes.filter((_, index) => D.cells[first].place[index] !== D.cells[second].place[index]).map(({ name }) => name);
}

function pairControls() {
  const set = (name) => (value) => put({ [name]: value === true ? "1" : value === false ? "0" : value, "pair.all": "0" });
  const alone = new Set([get("pair.axis"), ...(D.pairs[get("metric")] ?? []).map(([first, second]) => differing(first, second).join())]);
  redraw($("#pair-controls"),
    choice("Metric", D.qualities.map(({ name }) => [name, name]), get("metric"), (metric) => put({ metric, logy: "" })),
    choice("Differ only in", [["", "anything"], ...D.axes.filter(({ name }) => alone.has(name)).map(({ name }) => [name, name])], get("pair.axis"), set("pair.axis")),
    choice("One of them is", [["", "any cell"], ...D.cells.map((cell, index) => [D.ids[index], cell.label])], get("pair.with"), set("pair.with")),
    toggle("Significant differences only", "only-real", get("pair.significant") === "1", set("pair.significant")),
    make("button", { type: "button", id: "save-pairs", onclick: savePairs }, "Save as CSV"));
}

function chosenPairs() {
  const axis = get("pair.axis"), one = cellOf.get(get("pair.with")), sort = get("pair.sort"), column = Math.abs(parseInt(sort, 10)), down = sort.startsWith("-");
  let rows = D.pairs[get("metric")] ?? [];
  if (one !== undefined) rows = rows.filter(([first, second]) => first === one || second === one);
  if (axis) rows = rows.filter(([first, second]) => differing(first, second).join() === axis);
  if (get("pair.significant") === "1") rows = rows.filter((row) => row[6] < 0.05);
  // Column 3 is the interval: by its width.
  const by = { 0: 0, 1: 1, 2: 2, 3: (row) => row[4] - row[3], 4: 5, 5: 6, 6: (row) => row[6] - Math.min(1, Math.abs(row[2])) * 1e-9 }[column];
  const key = typeof by === "function" ? by : (row) => row[by];
  return [...rows].sort((a, b) => (key(a) - key(b)) * (down ? -1 : 1));
}

/** The better cell of a pair; null if neither is. */
function betterOf([first, second, difference, , , , adjusted]) {
  if (adjusted >= 0.05) return null;
  return (difference > 0) === qualityOf(get("metric")).higher ? first : second;
}

function savePairs() {
  const rows = chosenPairs().map((row) => [...row.slice(0, 2).map((cell) => D.cells[cell].label), ...row.slice(2), betterOf(row) === null ? "" : D.cells[betterOf(row)].label]);
  saveTable(`pairs_${fileName()}.csv`, [["first", "second", "difference", "low", "high", "p", "adjusted p", "to decide", "better"], ...rows]);
}

function showPairs() {
  const table = $("#pair-table"), metric = get("metric"), all = get("pair.all") === "1", sort = get("pair.sort");
  const head = make("tr");
  columns.forEach((name, index) => {
    const own = Math.abs(parseInt(sort, 10)) === index, down = own && sort.startsWith("-");
    const button = make("button", { type: "button", onclick: () => put({ "pair.sort": own && !down ? `-${index}` : String(index) }) }, name);
    head.append(make("th", { scope: "col", className: index > 1 && index < 6 ? "value" : "", "aria-sort": !own ? "none" : down ? "descending" : "ascending" }, button));
  });
  const rows = chosenPairs(), body = make("tbody"), shown = all ? rows : rows.slice(0, LISTED);
  const most = Math.max(0, ...shown.map((row) => decimals(number(row[2]))));
  for (const row of shown) {
    const [first, second, difference, low, high, p, holm, needed] = row, winner = betterOf(row);
    const open = (cell, other) => make("td", {}, make("button", { type: "button", className: "link", onclick: () => { put({ with: D.ids[other] }); view(cell, 0); } }, D.cells[cell].label));
    const why = needed ? `undecided; with ${needed}` : "undecided";
    const told = winner === null ? make("span", { className: "note" }, why) : make("span", { className: "real" }, D.cells[winner].label);
    const value = (...content) => make("td", { className: "value" }, ...content);
    body.append(make("tr", {}, open(first, second), open(second, first), value(aligned((difference > 0 ? "+" : "") + number(difference), most)),
      value(`${number(low)} to ${number(high)}`), value(probability(p)), value(probability(holm)), make("td", {}, told)));
  }
  if (!rows.length) {
    const why = (D.pairs[metric] ?? []).length ? "No such pair." : "Nothing to compare: this takes two finished cells of the same condition with intervals, so at least 16 samples each.";
    body.append(make("tr", {}, make("td", { colSpan: columns.length }, why)));
  } else if (!all && rows.length > LISTED) {
    const more = make("button", { type: "button", className: "link", id: "all-pairs", onclick: () => put({ "pair.all": "1" }) }, `show all ${rows.length} pairs`);
    body.append(make("tr", {}, make("td", { colSpan: columns.length }, more)));
  }
  redraw($("thead", table), head);
  $("tbody", table).replaceWith(body);
}

function setUpPairs() {
  on(["metric", "pair."], () => { pairControls(); showPairs(); });
}
