// Pictures.

const cellAt = new Map(D.cells.map((cell, index) => [cell.place.join(), index]));
const NONE = -1;
const grid = { rows: NONE, columns: NONE, fixed: D.axes.map(() => 0), sample: 0, many: 1, size: 0 };
const lazy = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.src = D.cells[entry.target.dataset.cell].pictures[entry.target.dataset.sample];
    lazy.unobserve(entry.target);
  }
}, { rootMargin: "300px" });

function firstAxes() {
  const steps = D.axes.findIndex((axis) => ["steps", "max_nfe", "max_forward_passes"].includes(axis.name));
  const scheduler = D.axes.findIndex((axis) => axis.name === "scheduler");
  const others = D.axes.map((_, index) => index).filter((index) => index !== steps);
  grid.columns = steps >= 0 ? steps : others.length > 1 ? others.find((index) => index !== scheduler) : NONE;
  grid.rows = scheduler >= 0 ? scheduler : others.find((index) => index !== grid.columns) ?? NONE;
  if (grid.columns === NONE) [grid.rows, grid.columns] = [NONE, grid.rows];
  grid.many = D.samples.length >= 4 && D.cells.length <= 60 ? 4 : 1;
  const count = grid.columns === NONE ? 6 : D.axes[grid.columns].values.length;
  const room = ($("#grid").clientWidth - 150) / (count * Math.ceil(Math.sqrt(grid.many))) - 8;
  grid.size = Math.max(48, Math.min(D.side <= 64 ? 96 : 192, Math.floor(room / 16) * 16));
  if (grid.rows !== NONE) pairs.axis = String(grid.rows);
  // Begin where there is a picture.
  const start = D.cells.find((cell) => cell.pictures.some(Boolean)) || D.cells[0];
  grid.fixed = [...start.place];
}

function pictureControls() {
  const box = $("#picture-controls"), axes = [[NONE, "none"], ...D.axes.map((axis, index) => [index, axis.name])];
  const set = (change) => { Object.assign(grid, change); pictureControls(); showGrid(); };
  box.replaceChildren();
  if (D.axes.length) {
    const pick = (own, other) => (text) => {
      const value = Number(text), swap = value !== NONE && grid[other] === value;
      set({ [own]: value, ...(swap ? { [other]: grid[own] } : {}) });
    };
    box.append(choice("Rows", axes, grid.rows, pick("rows", "columns")));
    box.append(choice("Columns", axes, grid.columns, pick("columns", "rows")));
  }
  D.axes.forEach((axis, index) => {
    if (index === grid.rows || index === grid.columns || (grid.rows === NONE && grid.columns === NONE)) return;
    const values = axis.values.map((value, number) => [number, value]);
    box.append(choice(axis.name, values, grid.fixed[index], (text) => {
      const fixed = [...grid.fixed];
      fixed[index] = Number(text);
      set({ fixed });
    }));
  });
  if (D.samples.length > 1) {
    const counts = [1, 4, 9, 16].filter((count) => count <= Math.max(4, D.samples.length)).map((count) => [count, count]);
    box.append(choice("Samples in a cell", counts, grid.many, (text) => set({ many: Number(text) })));
    const move = (by) => () => set({ sample: (grid.sample + by + D.samples.length) % D.samples.length });
    const stepper = make("span", { className: "stepper" },
      make("button", { type: "button", id: "sample-earlier", "aria-label": "Previous samples", onclick: move(-grid.many) }, "‹"),
      make("button", { type: "button", id: "sample-later", "aria-label": "Next samples", onclick: move(grid.many) }, "›"));
    box.append(make("span", { className: "field" }, D.samples[grid.sample], stepper));
  }
  const size = make("input", { type: "range", min: 32, max: 256, step: 16, value: grid.size, id: "tile-size" });
  size.oninput = () => { grid.size = Number(size.value); $("#grid").style.setProperty("--tile", `${grid.size}px`); };
  box.append(make("label", {}, "Size", size));
}

function cellBox(index) {
  const cell = D.cells[index], box = make("div", { className: "cell" });
  const shown = [];
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
  if (cell.metrics[state.metric]) told.push(cell.metrics[state.metric].replace(/ \(.*/, ""));
  if (told.length) box.append(make("div", { className: "caption", title: `${state.metric} of ${cell.label}` }, told.join(" · ")));
  return box;
}

function tile(index, sample) {
  const cell = D.cells[index], said = `${cell.label}, ${D.samples[sample]}`;
  if (!cell.pictures[sample]) return make("div", { className: "empty", title: said }, "–");
  const image = make("img", { alt: said, decoding: "async", "data-cell": index, "data-sample": sample });
  lazy.observe(image);
  return make("button", { type: "button", className: `tile${D.shrunk ? "" : " pixelated"}`, onclick: () => view(index, sample) }, image);
}

function at(row, column) {
  const place = [...grid.fixed];
  if (grid.rows !== NONE) place[grid.rows] = row;
  if (grid.columns !== NONE) place[grid.columns] = column;
  return cellAt.get(place.join());
}

function flowOf() {
  if (grid.rows === NONE && grid.columns === NONE) return D.cells.map((_, index) => index);
  const axis = grid.rows === NONE ? grid.columns : grid.rows;
  return D.axes[axis].values.map((_, value) => at(value, value)).filter((index) => index !== undefined);
}

function showGrid() {
  const box = $("#grid");
  lazy.disconnect();
  box.style.setProperty("--tile", `${grid.size}px`);
  if (grid.rows === NONE || grid.columns === NONE) {
    const flow = make("div", { className: "flow" });
    for (const index of flowOf()) {
      flow.append(make("figure", {}, cellBox(index), make("figcaption", {}, D.cells[index].label)));
    }
    box.replaceChildren(flow);
    return;
  }
  const rows = D.axes[grid.rows], columns = D.axes[grid.columns];
  const head = make("tr", {}, make("th", { scope: "col" }, `${rows.name} \\ ${columns.name}`));
  for (const value of columns.values) head.append(make("th", { scope: "col" }, value));
  const body = make("tbody");
  rows.values.forEach((value, row) => {
    const line = make("tr", {}, make("th", { scope: "row" }, value));
    let any = false;
    columns.values.forEach((_, column) => {
      const index = at(row, column);
      any = any || index !== undefined;
      line.append(make("td", {}, index === undefined ? make("div", { className: "empty" }, "no cell") : cellBox(index)));
    });
    if (any) body.append(line);
  });
  box.replaceChildren(make("table", {}, make("thead", {}, head), body));
}
