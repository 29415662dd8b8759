// The viewer.

const viewer = { cell: 0, sample: 0, pinned: null };

function view(cell, sample) {
  Object.assign(viewer, { cell, sample });
  show();
  if (!$("#viewer").open) $("#viewer").showModal();
}

function show() {
  const cell = D.cells[viewer.cell], picture = cell.pictures[viewer.sample], image = $("#viewer-image"), empty = $("#viewer-empty");
  const said = D.samples.length ? `${cell.label}, ${D.samples[viewer.sample]}` : cell.label;
  $("#viewer-title").textContent = said;
  const folder = cell.links[viewer.sample] ?? cell.link;
  image.hidden = !picture;
  empty.hidden = Boolean(picture);
  empty.textContent = cell.error ? `${cell.status}: ${cell.error}` : `${cell.status}, no image`;
  if (picture) {
    image.src = picture;
    image.alt = said;
    image.classList.toggle("pixelated", !D.shrunk && D.side <= 96);
    if (D.shrunk && cell.files && D.files[viewer.sample]) full(`${folder}/${D.files[viewer.sample]}`, image, picture);
  }
  const facts = $("#viewer-facts");
  facts.replaceChildren();
  D.axes.forEach((axis, index) => facts.append(make("div", {}, make("dt", {}, axis.name), make("dd", {}, axis.values[cell.place[index]]))));
  for (const [name, text] of Object.entries(cell.metrics)) facts.append(make("div", {}, make("dt", {}, name), make("dd", {}, text)));
  const link = $("#viewer-link");
  link.hidden = !folder;
  link.href = `${folder}/`;
  link.textContent = `run folder ${decodeURIComponent(folder)}`;
  const pin = $('[data-go="pin"]'), flip = $('[data-go="flip"]');
  pin.setAttribute("aria-pressed", String(viewer.pinned === viewer.cell));
  flip.disabled = viewer.pinned === null;
  flip.textContent = viewer.pinned === null ? "flip" : `flip: ${D.cells[viewer.pinned].label}`;
}

/** The file itself where it can be had: this page may have been moved away from it. */
function full(url, image, picture) {
  const loading = new Image();
  loading.onload = () => { if (image.src === picture) image.src = loading.src; };
  loading.src = url;
}

function step(axis, by) {
  if (axis === NONE || grid.rows === NONE || grid.columns === NONE) {
    const flow = flowOf(), here = flow.indexOf(viewer.cell);
    return flow[(here + by + flow.length) % flow.length] ?? viewer.cell;
  }
  const place = [...D.cells[viewer.cell].place], count = D.axes[axis].values.length;
  for (let tries = 0; tries < count; tries++) {
    place[axis] = (place[axis] + by + count) % count;
    const found = cellAt.get(place.join());
    if (found !== undefined) return found;
  }
  return viewer.cell;
}

const moves = {
  left: () => { viewer.cell = step(grid.columns, -1); },
  right: () => { viewer.cell = step(grid.columns, 1); },
  up: () => { viewer.cell = step(grid.rows, -1); },
  down: () => { viewer.cell = step(grid.rows, 1); },
  earlier: () => { viewer.sample = (viewer.sample + D.samples.length - 1) % Math.max(1, D.samples.length); },
  later: () => { viewer.sample = (viewer.sample + 1) % Math.max(1, D.samples.length); },
  pin: () => { viewer.pinned = viewer.pinned === viewer.cell ? null : viewer.cell; },
  flip: () => { if (viewer.pinned !== null) [viewer.cell, viewer.pinned] = [viewer.pinned, viewer.cell]; },
};
const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", ",": "earlier", ".": "later", p: "pin", " ": "flip" };

function setUpViewer() {
  const dialog = $("#viewer"), stage = $(".viewer-stage");
  $("#viewer-close").onclick = () => dialog.close();
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const go = keys[event.key];
    if (!go || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[go]();
    show();
  });
  for (const button of $$("[data-go]")) button.onclick = () => { moves[button.dataset.go](); show(); };
  let from = null;
  stage.addEventListener("pointerdown", (event) => { from = event.clientX; });
  stage.addEventListener("pointerup", (event) => {
    const way = from === null ? 0 : event.clientX - from;
    from = null;
    if (Math.abs(way) > 40) { moves[way > 0 ? "left" : "right"](); show(); }
  });
  for (const button of $$("[data-open]")) button.onclick = () => view(Number(button.dataset.open), 0);
}
