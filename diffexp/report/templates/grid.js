// The grid of images.

const TOGETHER = 4; // up to so many cells are shown in one place of the grid, until the others are asked for
const opened = new Set();
const isSmall = !D.shrunk && D.side <= 96; // images whose pixels may be seen
const lazy = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.src = D.cells[entry.target.dataset.cell].pictures[entry.target.dataset.sample];
    lazy.unobserve(entry.target);
  }
}, { rootMargin: "300px" });

function pictureControls() {
  const { rows, columns } = grid, names = [["none", "none"], ...D.axes.map(({ name }) => [name, name])], parts = [];
  if (D.axes.length) {
    const pick = (own, other) => (name) => put({ [own]: name, ...(name !== "none" && get(other) === name ? { [other]: get(own) } : {}) });
    parts.push(choice("Rows", names, get("rows"), pick("rows", "columns")), choice("Columns", names, get("columns"), pick("columns", "rows")));
  }
  D.axes.forEach((axis, index) => {
    if (index === rows || index === columns || (rows === NONE && columns === NONE)) return;
    parts.push(choice(axis.name, [[ANY, "any"], ...axis.values.map((value) => [value, value])], get(`at.${axis.name}`), (value) => put({ [`at.${axis.name}`]: value })));
  });
  if (D.samples.length > 1) {
    const counts = [1, 4, 9, 16].filter((count) => count <= Math.max(4, D.samples.length)).map((count) => [count, count]);
    parts.push(choice("Samples in a cell", counts, get("many"), (many) => put({ many })));
    const move = (by) => () => put({ sample: (grid.sample + by + D.samples.length) % D.samples.length });
    const stepper = make("span", { className: "stepper" },
      make("button", { type: "button", id: "sample-earlier", "aria-label": "Previous samples", onclick: move(-grid.many) }, "‹"),
      make("button", { type: "button", id: "sample-later", "aria-label": "Next samples", onclick: move(grid.many) }, "›"));
    parts.push(make("span", { className: "field" }, D.samples[grid.sample], stepper));
  }
  const size = make("input", { type: "range", min: 32, max: 256, step: 16, value: grid.size, id: "tile-size" });
  size.oninput = () => put({ size: size.value });
  parts.push(make("label", {}, "Size", size));
  redraw($("#picture-controls"), ...parts);
}

function pictureNote() {
  const texts = [], each = D.samples.length;
  const many = Math.min(grid.many, each - grid.sample);
  if (each > many) texts.push(`${many} of the ${each} samples in this page ${many === 1 ? "is" : "are"} shown for each cell; the buttons at “${D.samples[grid.sample]}” show the others.`);
  if (D.available > each) texts.push(`The run folders have up to ${D.available} samples of a cell.`);
  if (D.cells.length > 1) texts.push("Cells with the same seed start from the same noise, so their samples can be compared one by one.");
  if (D.cells.some((cell) => cell.seeds)) texts.push("Runs that differ in the seed alone are one cell.");
  texts.push("Click an image to enlarge and compare it; the arrow keys then show the other cells.");
  $("#picture-note").textContent = texts.join(" ");
}

function cellBox(index) {
  const cell = D.cells[index], box = make("div", { className: "cell" }), shown = [], metric = get("metric");
  for (let i = 0; i < grid.many && grid.sample + i < D.samples.length; i++) shown.push(grid.sample + i);
  box.style.setProperty("--across", Math.ceil(Math.sqrt(Math.max(1, shown.length))));
  if (cell.pictures.some(Boolean)) {
    const tiles = make("div", { className: "tiles" });
    for (const sample of shown) tiles.append(tile(index, sample));
    box.append(tiles);
  } else {
    box.append(make("button", { type: "button", className: "empty", onclick: () => view(index, grid.sample) }, cell.error ? `${cell.status}: ${cell.error}` : cell.status));
  }
  const told = [];
  if (cell.status !== "done" && cell.pictures.some(Boolean)) told.push(cell.status);
  if (cell.values[metric]) told.push(number(cell.values[metric][0]));
  if (!told.length) return box;
  const rank = markOf(index, metric), caption = make("div", { className: `caption ${rank ?? ""}`, title: `${metric} of ${cell.label}` }, told.join(" · "));
  if (rank) caption.append(make("span", { className: "rank" }, rank === "best" ? " best" : " ≈ best"));
  box.append(caption);
  return box;
}

function tile(index, sample) {
  const cell = D.cells[index], said = `${cell.label}, ${D.samples[sample]}`;
  if (!cell.pictures[sample]) return make("div", { className: "empty", title: said }, "–");
  const image = make("img", { alt: said, decoding: "async", "data-cell": index, "data-sample": sample });
  lazy.observe(image);
  return make("button", { type: "button", className: `tile${isSmall ? " pixelated" : ""}`, onclick: () => view(index, sample) }, image);
}

/** The cells of one place; of several, each under what tells it from the others. */
function slot(cells, key) {
  if (!cells.length) return make("div", { className: "empty" }, "no cell");
  if (cells.length === 1) return cellBox(cells[0]);
  const differing = D.axes.map((_, axis) => axis).filter((axis) => new Set(cells.map((cell) => D.cells[cell].place[axis])).size > 1);
  const shown = opened.has(key) ? cells : cells.slice(0, TOGETHER);
  const figure = (cell) => make("figure", {}, make("figcaption", {}, differing.map((axis) => D.axes[axis].phrases[D.cells[cell].place[axis]]).filter(Boolean).join(" · ")), cellBox(cell));
  const box = make("div", { className: "together" }, ...shown.map(figure));
  if (shown.length < cells.length) box.append(make("button", { type: "button", className: "link more", onclick: () => { opened.add(key); showGrid(); } }, `${cells.length - shown.length} more`));
  return box;
}

function showGrid() {
  const box = $("#grid"), { rows: rowAxis, columns: columnAxis } = grid;
  lazy.disconnect();
  box.style.setProperty("--tile", `${grid.size}px`);
  if (rowAxis === NONE || columnAxis === NONE) {
    const flow = make("div", { className: "flow" });
    for (const index of flowOf()) flow.append(make("figure", {}, cellBox(index), make("figcaption", {}, D.cells[index].label)));
    box.replaceChildren(flow);
    return;
  }
  const rows = D.axes[rowAxis], columns = D.axes[columnAxis], found = new Map();
  for (const cell of cellsAt(undefined, undefined)) {
    const key = `${D.cells[cell].place[rowAxis]},${D.cells[cell].place[columnAxis]}`;
    found.set(key, [...(found.get(key) ?? []), cell]);
  }
  const places = columns.values.map((_, column) => column).filter((column) => rows.values.some((_, row) => found.has(`${row},${column}`)));
  const head = make("tr", {}, make("th", { scope: "col" }, `${rows.name} \\ ${columns.name}`), ...places.map((column) => make("th", { scope: "col" }, columns.values[column])));
  const body = make("tbody");
  rows.values.forEach((value, row) => {
    if (!places.some((column) => found.has(`${row},${column}`))) return;
    body.append(make("tr", {}, make("th", { scope: "row" }, ...breakable(value)), ...places.map((column) => make("td", {}, slot(found.get(`${row},${column}`) ?? [], `${row},${column}`)))));
  });
  if (!places.length) return box.replaceChildren(make("p", { className: "note" }, "No cell has these values; choose “any” for one of them."));
  box.replaceChildren(make("table", {}, make("thead", {}, head), body));
}

function setUpGrid() {
  on(["size"], () => {
    $("#grid").style.setProperty("--tile", `${grid.size}px`);
    $("#tile-size").value = grid.size;
  });
  on(["rows", "columns", "at.", "sample", "many", "metric", "pick."], () => { showGrid(); pictureNote(); });
  on(["rows", "columns", "at.", "sample", "many"], pictureControls);
}
