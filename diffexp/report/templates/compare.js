// The stage of the viewer: one image, two side by side, one over the other, their difference, or how a sample came about.

const MODES = { one: "One", side: "Side by side", slider: "Slider", difference: "Difference", film: "Sampling" };
const isPair = (mode) => mode === "side" || mode === "slider" || mode === "difference";

function usableModes() {
  const cell = D.cells[viewer.cell], pictures = D.samples.length > 0;
  return Object.keys(MODES).filter((mode) => mode === "one" || (isPair(mode) && pictures && D.cells.length > 1) || (mode === "film" && cell.films.length));
}
const modeNow = () => usableModes().includes(get("mode")) ? get("mode") : "one";

/** A comparison takes a second cell: the pinned one, else the next in the grid. */
function setMode(mode) {
  const { cell, pinned } = viewer, other = pinned !== null && pinned !== cell ? pinned : nextTo(cell);
  put({ mode, ...(isPair(mode) ? { with: D.ids[other] } : {}) });
}

function nextTo(cell) {
  const near = [[grid.rows, -1], [grid.rows, 1], [grid.columns, -1], [grid.columns, 1]].map(([axis, by]) => neighbour(cell, axis, by));
  return near.find((other) => other !== cell) ?? D.cells.findIndex((_, index) => index !== cell);
}

function showStage() {
  const { cell: index, sample, pinned } = viewer, mode = modeNow(), open = usableModes();
  const stage = $("#stage"), shots = $("#shots"), films = $("#films"), empty = $("#viewer-empty"), cell = D.cells[index];
  stage.dataset.mode = mode;
  redraw($("#viewer-modes"), ...open.map((name) => make("button", { type: "button", role: "radio", "data-mode": name, "aria-checked": String(mode === name), tabIndex: mode === name ? 0 : -1, onclick: () => setMode(name) }, MODES[name])));
  const two = isPair(mode) && pinned !== null ? D.cells[pinned] : null;
  const missing = mode !== "film" && (!cell.pictures[sample] ? cell : two && !two.pictures[sample] ? two : null);
  shots.hidden = mode === "film" || Boolean(missing);
  films.hidden = mode !== "film";
  empty.hidden = !missing;
  if (missing) empty.textContent = (two ? `${missing.label}: ` : "") + (missing.error ? `${missing.status}: ${missing.error}` : `${missing.status}, no image`);
  showShot($("#shot-one"), cell, sample, Boolean(two));
  $("#shot-two").hidden = !two;
  if (two) showShot($("#shot-two"), two, sample, true);
  if (mode === "film") showFilms(cell, sample);
  shots.style.setProperty("--gain", get("gain"));
  shots.style.setProperty("--split", `${get("split")}%`);
  showTool(mode, cell, two, sample);
}

function showShot(figure, cell, sample, titled) {
  const image = $("img", figure), picture = cell.pictures[sample];
  image.hidden = !picture;
  $("figcaption", figure).textContent = titled ? cell.label : "";
  if (!picture) return;
  if (image.getAttribute("src") !== picture) image.src = picture;
  image.alt = `${cell.label}, ${D.samples[sample]}`;
  image.classList.toggle("pixelated", isSmall);
  if (D.shrunk && cell.files && D.files[sample]) full(`${cell.links[sample] ?? cell.link}/${D.files[sample]}`, image, picture);
}

/** The file itself where it can be had: this page may have been moved away from it. */
function full(url, image, picture) {
  const loading = new Image();
  loading.onload = () => { if (image.getAttribute("src") === picture) image.src = loading.src; };
  loading.src = url;
}

function showFilms(cell, sample) {
  const folder = cell.links[sample] ?? cell.link, box = $("#films");
  if (box.dataset.folder === folder) return;
  box.dataset.folder = folder;
  box.replaceChildren(...cell.films.map((name) => {
    const text = name.endsWith(".gif") ? "animation" : "film strip", image = make("img", { src: `${folder}/${name}`, alt: `${text} of the sampling of ${cell.label}` });
    image.onerror = () => image.replaceWith(make("p", { className: "empty" }, `the ${text} is in ${decodeURIComponent(folder)}/${name}, which is not beside this page`));
    return make("figure", { className: name.endsWith(".gif") ? "gif" : "strip", tabIndex: 0 }, image, make("figcaption", {}, `${text} of sampling: x_t and the predicted x0`));
  }));
}

function showTool(mode, cell, two, sample) {
  const box = $("#viewer-tool");
  if (mode === "slider" && two) {
    const range = make("input", { type: "range", min: 0, max: 100, value: get("split"), id: "split", "aria-label": `Share of the first cell: ${cell.label}`, oninput: () => setSplit(range.value) });
    redraw(box, range);
  } else if (mode === "difference" && two) {
    const told = make("span", { className: "note", id: "difference-text" });
    redraw(box, choice("Amplified", [1, 2, 4, 8, 16].map((gain) => [gain, `×${gain}`]), get("gain"), (gain) => put({ gain })), told);
    measureDifference(cell.pictures[sample], two.pictures[sample]).then((text) => { told.textContent = text; });
  } else showPlayers(box, mode === "film" ? [] : [cell, two], sample);
}

/** Players of the videos or sounds of cells, which go on as long as they are those that are shown. */
function showPlayers(box, cells, sample) {
  const playable = cells.filter((cell) => cell?.media[sample]);
  const urls = playable.map((cell) => `${cell.links[sample] ?? cell.link}/${cell.media[sample]}`);
  if (urls.length && box.dataset.playing === urls.join(" ") && box.firstChild) return;
  box.dataset.playing = urls.join(" ");
  box.replaceChildren(...urls.map((url, at) => player(url, `${playable[at].label}, ${D.samples[sample]}`)));
}

function player(url, label) {
  const common = { src: url, className: "player", title: label }, kind = url.split(".").pop();
  const made = kind === "wav" ? make("audio", { ...common, controls: true })
    : kind === "mp4" ? make("video", { ...common, controls: true, loop: true, muted: true, autoplay: true, playsInline: true })
    : make("img", { ...common, alt: label });
  made.onerror = () => made.replaceWith(make("p", { className: "empty" }, `the file is ${decodeURIComponent(url)}, which is not beside this page`));
  return made;
}

function setSplit(share) {
  put({ split: Math.round(Math.max(0, Math.min(100, share))) });
  $("#shots").style.setProperty("--split", `${get("split")}%`);
  const range = $("#split");
  if (range) range.value = get("split");
}

async function pixels(picture) {
  const image = new Image();
  image.src = picture;
  await image.decode();
  const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight }), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** How far two images are apart, of the samples as they are in the page. */
async function measureDifference(first, second) {
  if (!first || !second) return "";
  try {
    const [a, b] = await Promise.all([pixels(first), pixels(second)]);
    if (a.width !== b.width || a.height !== b.height) return "The images are of different sizes.";
    let squares = 0, largest = 0;
    for (let i = 0; i < a.data.length; i++) {
      if (i % 4 === 3) continue;
      const apart = Math.abs(a.data[i] - b.data[i]) / 255;
      squares += apart * apart;
      largest = Math.max(largest, apart);
    }
    const rms = Math.sqrt(squares / (a.width * a.height * 3));
    return rms === 0 ? "The images are equal." : `rms difference ${number(rms)}, largest ${number(largest)}, of a pixel range of 1${D.shrunk && first.startsWith("data:") ? " (of the small images in this page)" : ""}`;
  } catch {
    return "";
  }
}

function setUpStage() {
  $("#shot-two").prepend(make("img", { id: "viewer-other", alt: "" }));
  const shots = $("#shots");
  const drag = (event) => {
    const box = $("#viewer-image").getBoundingClientRect();
    setSplit(100 * (event.clientX - box.left) / box.width);
  };
  shots.addEventListener("dragstart", (event) => event.preventDefault());
  shots.addEventListener("pointerdown", (event) => {
    if (modeNow() !== "slider") return;
    shots.setPointerCapture(event.pointerId);
    drag(event);
    shots.onpointermove = drag;
    shots.onpointerup = shots.onpointercancel = () => { shots.onpointermove = null; };
  });
  $("#viewer-modes").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], open = usableModes();
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    setMode(open[(open.indexOf(modeNow()) + by + open.length) % open.length]);
    $('#viewer-modes [aria-checked="true"]').focus();
  });
}
