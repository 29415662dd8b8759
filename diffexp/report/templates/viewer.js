// The viewer: one cell, or two against each other.

Object.assign(defaults, { view: "", shot: "0", with: "", mode: "one", gain: "4", split: "50" });
const cellOf = new Map(D.ids.map((id, index) => [id, index]));
const viewer = {
  get cell() { return cellOf.get(get("view")) ?? 0; },
  get sample() { return Math.max(0, Math.min(Number(get("shot")) || 0, D.samples.length - 1)); },
  /** The cell that the viewed one is compared with, or null. */
  get pinned() { return cellOf.get(get("with")) ?? null; },
};

function view(cell, sample) {
  put({ view: D.ids[cell], shot: sample });
  showViewer();
}

function showViewer() {
  const dialog = $("#viewer");
  if (!cellOf.has(get("view"))) return dialog.open && dialog.close();
  if (!dialog.open) dialog.showModal();
  const { cell: index, sample, pinned } = viewer, cell = D.cells[index];
  $("#viewer-title").textContent = D.samples.length ? `${cell.label}, ${D.samples[sample]}` : cell.label;
  showStage();
  const facts = $("#viewer-facts"), fact = (name, text, rank) => facts.append(make("div", {}, make("dt", {}, ...breakable(name)), make("dd", { className: rank ?? "" }, text)));
  facts.replaceChildren();
  D.axes.forEach((axis, at) => fact(axis.name, axis.values[cell.place[at]]));
  for (const [name, value] of Object.entries(cell.values)) fact(name, valueText(value) + ({ best: ", best", tie: ", ≈ best" }[markOf(index, name)] ?? ""), markOf(index, name));
  if (pinned !== null && pinned !== index) differenceFacts(fact, index, pinned);
  const folder = cell.links[sample] ?? cell.link, link = $("#viewer-link"), command = cell.commands[folder] ?? "";
  link.hidden = !folder;
  link.href = `${folder}/`;
  link.textContent = `run folder ${decodeURIComponent(folder)}`;
  $("#viewer-command").hidden = !command;
  $("#viewer-command code").textContent = command;
  const pin = $('[data-go="pin"]'), flip = $('[data-go="flip"]'), other = $("#viewer-with");
  pin.setAttribute("aria-pressed", String(pinned === index));
  flip.disabled = pinned === null;
  flip.textContent = pinned === null ? "flip" : `flip: ${D.cells[pinned].label}`;
  other.value = pinned === null ? "" : D.ids[pinned];
}

/** The paired difference in the chosen metric, as in the table of pairs. */
function differenceFacts(fact, first, second) {
  const row = (D.pairs[get("metric")] ?? []).find(([a, b]) => (a === first && b === second) || (a === second && b === first));
  if (!row) return;
  const sign = row[0] === first ? 1 : -1, [low, high] = [sign * row[3], sign * row[4]].sort((a, b) => a - b);
  fact(`Δ ${get("metric")}`, `${number(sign * row[2])} (${number(low)} to ${number(high)}), adjusted p ${probability(row[6])}`);
}

const go = (cell) => put({ view: D.ids[cell] });
const moves = {
  left: () => go(neighbour(viewer.cell, grid.columns, -1)),
  right: () => go(neighbour(viewer.cell, grid.columns, 1)),
  up: () => go(neighbour(viewer.cell, grid.rows, -1)),
  down: () => go(neighbour(viewer.cell, grid.rows, 1)),
  earlier: () => put({ shot: (viewer.sample + D.samples.length - 1) % Math.max(1, D.samples.length) }),
  later: () => put({ shot: (viewer.sample + 1) % Math.max(1, D.samples.length) }),
  pin: () => put({ with: viewer.pinned === viewer.cell ? "" : D.ids[viewer.cell] }),
  flip: () => { if (viewer.pinned !== null) put({ view: D.ids[viewer.pinned], with: D.ids[viewer.cell] }); },
  mode: () => {
    const open = usableModes();
    setMode(open[(open.indexOf(modeNow()) + 1) % open.length]);
  },
};
const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", ",": "earlier", ".": "later", p: "pin", " ": "flip", v: "mode" };

function setUpViewer() {
  const dialog = $("#viewer"), stage = $("#stage"), other = $("#viewer-with");
  $("#viewer-close").onclick = () => put({ view: "" });
  dialog.addEventListener("close", () => put({ view: "" }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) put({ view: "" }); });
  dialog.addEventListener("keydown", (event) => {
    const name = keys[event.key], typing = event.target.matches("select, input");
    if (!name || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === " " && event.target.matches("button")) return;
    event.preventDefault();
    moves[name]();
  });
  for (const button of $$("[data-go]")) button.onclick = () => moves[button.dataset.go]();
  other.append(make("option", { value: "" }, "no other cell"), ...D.cells.map((cell, index) => make("option", { value: D.ids[index] }, cell.label)));
  other.onchange = () => put({ with: other.value });
  $("#copy-command").onclick = () => copyText($("#viewer-command code").textContent, "command");
  let from = null;
  stage.addEventListener("pointerdown", (event) => { from = modeNow() === "slider" ? null : event.clientX; });
  stage.addEventListener("pointerup", (event) => {
    const way = from === null ? 0 : event.clientX - from;
    from = null;
    if (Math.abs(way) > 40) moves[way > 0 ? "left" : "right"]();
  });
  setUpStage();
  on(["view", "shot", "with", "mode", "gain"], showViewer);
}
