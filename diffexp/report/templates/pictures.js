// Which cell is where in the grid of images.

const NONE = -1, ANY = "(any)";
Object.assign(defaults, { rows: "", columns: "", sample: "0", many: "1", size: "96" });
const numberAt = (name) => axisOf.get(get(name)) ?? NONE;
const grid = {
  get rows() { return numberAt("rows"); },
  get columns() { return numberAt("columns"); },
  get sample() { return Math.max(0, Math.min(Number(get("sample")) || 0, D.samples.length - 1)); },
  get many() { return Number(get("many")) || 1; },
  get size() { return Math.max(32, Math.min(256, Number(get("size")) || 96)); },
  /** For each axis the number of the value that is shown, or NONE for any. */
  get fixed() { return D.axes.map((axis) => axis.values.indexOf(get(`at.${axis.name}`))); },
};

/** Whether an axis is crossed with the others: for each of its values, most combinations of the others exist. */
function isCrossed(axis) {
  const combinations = D.axes[axis].values.map(() => new Set());
  for (const { place } of D.cells) combinations[place[axis]].add(place.filter((_, index) => index !== axis).join());
  const all = new Set(combinations.flatMap((own) => [...own])).size;
  return combinations.every((own) => own.size * 2 >= all);
}

function firstAxes() {
  const count = D.axes.length, limits = D.axes.findIndex((axis) => axis.limits), scheduler = axisOf.get("scheduler") ?? NONE;
  const others = D.axes.map((_, index) => index).filter((index) => index !== limits);
  let columns = limits >= 0 ? limits : count > 1 ? others.find((index) => index !== scheduler) : NONE;
  let rows = scheduler >= 0 ? scheduler : others.find((index) => index !== columns) ?? NONE;
  if (columns === NONE) [rows, columns] = [NONE, rows];
  const start = D.cells.find((cell) => cell.pictures.some(Boolean)) ?? D.cells[0]; // begin where there is an image
  defaults.rows = D.axes[rows]?.name ?? "none";
  defaults.columns = D.axes[columns]?.name ?? "none";
  const isWhole = D.cells.length >= 0.75 * D.axes.reduce((product, axis) => product * axis.values.length, 1);
  D.axes.forEach((axis, index) => { // where cells form no grid, one value of an axis would hide most of them
    const isGrid = index === rows || index === columns ? isWhole : isCrossed(index);
    defaults[`at.${axis.name}`] = isGrid ? axis.values[start.place[index]] : ANY;
  });
  defaults.many = String(D.samples.length >= 4 && D.cells.length <= 60 ? 4 : 1);
  const across = columns === NONE ? 6 : D.axes[columns].values.length;
  const room = (Math.min(innerWidth, 1320) - 192) / (across * Math.ceil(Math.sqrt(Number(defaults.many)))) - 8;
  defaults.size = String(Math.max(48, Math.min(D.side <= 64 ? 96 : 192, Math.floor(room / 16) * 16)));
  defaults["pair.axis"] = D.axes[rows]?.name ?? D.axes[columns]?.name ?? "";
}

/** The cells with these values on the axes of rows and columns, and with the chosen ones on the others. */
function cellsAt(row, column) {
  const { rows, columns, fixed } = grid, kept = selections();
  return D.cells.flatMap(({ place }, cell) => {
    const wanted = (axis) => axis === rows ? row : axis === columns ? column : fixed[axis];
    return place.every((value, axis) => wanted(axis) === NONE || wanted(axis) === undefined || value === wanted(axis)) && isSelected(cell, kept) ? [cell] : [];
  });
}

/** The cells in one line, where there are not both rows and columns; all cells where there are neither. */
function flowOf() {
  const { rows, columns } = grid, kept = selections();
  if (rows === NONE && columns === NONE) return D.cells.map((_, index) => index).filter((cell) => isSelected(cell, kept));
  return D.axes[rows === NONE ? columns : rows].values.flatMap((_, value) => cellsAt(value, value));
}

/** The cell next to one along the rows or columns of the grid, where there is one: the most similar of those there. */
function neighbour(cell, axis, by) {
  const { rows, columns } = grid;
  if (axis === NONE || rows === NONE || columns === NONE) {
    const flow = flowOf(), here = flow.indexOf(cell);
    return flow[(here + by + flow.length) % flow.length] ?? cell;
  }
  const place = D.cells[cell].place, count = D.axes[axis].values.length;
  for (let away = 1; away < count; away++) {
    const value = (place[axis] + by * away + count * away) % count;
    const there = axis === rows ? cellsAt(value, place[columns]) : cellsAt(place[rows], value);
    const alike = (other) => D.cells[other].place.filter((own, index) => own === place[index]).length;
    if (there.length) return there.reduce((best, other) => alike(other) > alike(best) ? other : best);
  }
  return cell;
}
