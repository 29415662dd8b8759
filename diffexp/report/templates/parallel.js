// Parallel coordinates: a line for each cell, through its value on every axis, a cost and the metric.

const MAX_LABELS = 24, PANEL = 330, HEAD = 46, FOOT = 18;

function dimensions() {
  const cost = get("x") in D.costs ? get("x") : D.cost;
  const numbers = [...new Set([cost, get("metric")])].filter((name) => D.cells.some((cell) => cell.values[name]));
  return [...D.axes.map(({ name }) => name), ...numbers.filter((name) => !axisOf.has(name))];
}

function dimension(name, x) {
  const [low, high] = [PANEL - FOOT, HEAD];
  if (axisOf.has(name)) {
    const axis = axisOf.get(name), count = D.axes[axis].values.length;
    const [first, last] = name in D.keys ? [low, high] : [high, low]; // numbers upwards, words from the top
    const at = (value) => count === 1 ? (low + high) / 2 : first + (last - first) * value / (count - 1);
    return { name, x, axis, at, of: (cell) => at(D.cells[cell].place[axis]) };
  }
  const values = D.cells.map((_, cell) => numberOf(cell, name)).filter((value) => value !== undefined);
  const at = scale(values, low, high, wantsLog(values));
  return { name, x, at, of: (cell) => numberOf(cell, name) === undefined ? null : at(numberOf(cell, name)) };
}

/** The colour of a cell: from that of the best to that of the worst value of the metric. */
function shades() {
  const metric = get("metric"), values = D.cells.map((cell) => cell.values[metric]?.[0]).filter((value) => value !== undefined);
  if (!values.length) return () => "var(--soft)";
  const at = scale(values, 0, 1, wantsLog(values)), [from, to] = [at(Math.min(...values)), at(Math.max(...values))];
  return (cell) => {
    const value = cell.values[metric]?.[0];
    if (value === undefined) return "var(--soft)";
    const share = to > from ? (at(value) - from) / (to - from) : 0;
    return `color-mix(in oklab, var(--c1) ${Math.round(100 * (qualityOf(metric)?.higher ? 1 - share : share))}%, var(--c0))`;
  };
}

let seen = false; // many lines are drawn only where they are looked at

function showParallel() {
  const box = $("#parallel");
  if (!seen) return;
  const names = dimensions(), width = Math.max(box.clientWidth - 2, 118 * names.length + 60);
  const apart = (width - 150) / Math.max(1, names.length - 1);
  const all = names.map((name, index) => dimension(name, 36 + index * apart)), kept = selections(), shade = shades();
  const chart = draw("svg", { class: "chart parallel", viewBox: `0 0 ${width} ${PANEL}`, style: `width: ${width}px`, role: "group", "aria-label": `Parallel coordinates of ${D.cells.length} cells over ${names.join(", ")}` });
  const order = D.cells.map((_, cell) => cell).sort((a, b) => isSelected(a, kept) - isSelected(b, kept));
  for (const cell of order) {
    const places = all.map((one) => [one.x, one.of(cell)]).filter(([, y]) => y !== null);
    const d = places.map(([x, y], i) => i ? `C${(x + places[i - 1][0]) / 2} ${places[i - 1][1].toFixed(1)} ${(x + places[i - 1][0]) / 2} ${y.toFixed(1)} ${x} ${y.toFixed(1)}` : `M${x} ${y.toFixed(1)}`).join("");
    chart.append(draw("path", { class: `thread${isSelected(cell, kept) ? "" : " out"}`, d, "data-cell": cell, style: `stroke: ${shade(D.cells[cell])}` }));
  }
  for (const one of all) chart.append(drawDimension(one, kept, apart));
  const label = document.activeElement?.closest?.("#parallel [aria-label]")?.getAttribute("aria-label");
  box.replaceChildren(chart);
  if (label) $$("[aria-label]", chart).find((element) => element.getAttribute("aria-label") === label)?.focus({ preventScroll: true });
}

function parallelControls() {
  const save = (kind) => make("button", { type: "button", id: `parallel-${kind}`, onclick: () => savePicture($("#parallel .chart"), "all_axes", kind) }, kind.toUpperCase());
  redraw($("#parallel-controls"), make("span", { className: "field" }, "Save", make("span", { className: "stepper" }, save("svg"), save("png"))),
    make("span", { className: "scale-key" }, "worse", make("span", { className: "ramp", "aria-hidden": "true" }), `better ${get("metric")}`));
}

function drawDimension(one, kept, apart) {
  const group = draw("g", { class: "dimension" }), picked = kept.find(([name]) => name === one.name)?.[1];
  const most = Math.max(6, Math.floor((apart - 22) / 7.4)), short = (text) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
  const lines = one.name.length > most && one.name.includes("/") ? one.name.split(/(?<=\/)/) : [one.name];
  lines.slice(0, 2).forEach((text, row) => group.append(draw("text", { class: "label", x: one.x, y: 18 + 14 * row, "text-anchor": one.x < 60 ? "start" : "middle", dx: one.x < 60 ? -24 : 0 }, short(text))));
  group.append(draw("path", { class: "line", d: `M${one.x} ${HEAD}V${PANEL - FOOT}` }));
  if (one.axis === undefined) return drawRange(group, one, picked);
  const values = D.axes[one.axis].values, every = Math.ceil(values.length / MAX_LABELS);
  values.forEach((value, index) => {
    if (index % every) return;
    const y = one.at(index), on = !picked || picked.includes(value);
    const flip = () => {
      const now = new Set(picked ?? []);
      if (!now.delete(value)) now.add(value);
      put({ [`pick.${one.name}`]: now.size && now.size < values.length ? JSON.stringify([...now]) : "" });
    };
    const key = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); flip(); } };
    group.append(draw("g", { class: `value-mark${on ? "" : " out"}`, role: "button", tabindex: 0, "aria-pressed": Boolean(picked?.includes(value)), "aria-label": `${one.name} ${value}`, onclick: flip, onkeydown: key },
      draw("rect", { x: one.x - 8, y: y - 9, width: Math.min(apart - 10, 22 + 7.4 * short(value).length), height: 18, rx: 4 }), draw("circle", { cx: one.x, cy: y, r: 4 }), draw("text", { x: one.x + 9, y: y + 4 }, short(value))));
  });
  return group;
}

/** An axis of numbers; the part of it that is chosen has two ends, to be dragged or moved by the arrow keys. */
function drawRange(group, one, picked) {
  for (const value of one.at.ticks()) group.append(draw("text", { x: one.x + 13, y: one.at(value) + 4, class: "tick" }, tickText(value)), draw("path", { class: "line", d: `M${one.x - 4} ${one.at(value)}h8` }));
  const ends = picked ?? [one.at.low, one.at.high], pixels = ends.map(one.at);
  const choose = (a, b) => {
    const found = [a, b].map((pixel) => one.at.back(Math.min(PANEL - FOOT, Math.max(HEAD, pixel)))).sort((p, q) => p - q);
    const whole = Math.abs(a - b) < 3 || (found[0] <= one.at.low * (1 + 1e-9) && found[1] >= one.at.high * (1 - 1e-9));
    put({ [`pick.${one.name}`]: whole ? "" : JSON.stringify(found.map((value) => Number(value.toPrecision(6)))) });
  };
  const room = draw("rect", { class: "brush-room", x: one.x - 14, y: HEAD - 6, width: 28, height: PANEL - HEAD - FOOT + 12 });
  const shown = draw("rect", { class: `brush${picked ? "" : " unused"}`, x: one.x - 6, y: pixels[1], width: 12, height: Math.max(1, pixels[0] - pixels[1]) });
  room.onpointerdown = (event) => {
    const svg = room.ownerSVGElement, height = (moved) => (moved.clientY - svg.getBoundingClientRect().top) * PANEL / svg.getBoundingClientRect().height;
    const from = height(event);
    event.preventDefault();
    room.setPointerCapture(event.pointerId);
    room.onpointermove = (moved) => {
      shown.setAttribute("y", Math.min(from, height(moved)));
      shown.setAttribute("height", Math.abs(from - height(moved)));
      shown.classList.remove("unused");
    };
    room.onpointerup = (moved) => choose(from, height(moved));
  };
  group.append(room, shown);
  ["lowest", "highest"].forEach((side, end) => {
    const key = (event) => {
      const by = { ArrowUp: -6, ArrowDown: 6, PageUp: -30, PageDown: 30 }[event.key];
      if (!by) return;
      event.preventDefault();
      choose(...pixels.map((pixel, index) => index === end ? pixel + by : pixel));
    };
    group.append(draw("rect", { class: "handle", x: one.x - 9, y: pixels[end] - 3, width: 18, height: 6, rx: 3, role: "slider", tabindex: 0, "aria-orientation": "vertical", "aria-label": `${side} ${one.name}`, "aria-valuemin": one.at.low, "aria-valuemax": one.at.high, "aria-valuenow": ends[end], "aria-valuetext": number(ends[end]), onkeydown: key }));
  });
  return group;
}

function setUpParallel() {
  const box = $("#parallel");
  if (!box) return;
  box.addEventListener("pointermove", (event) => {
    const thread = event.target.closest(".thread");
    for (const other of $$(".thread.lit", box)) if (other !== thread) other.classList.remove("lit");
    thread?.classList.add("lit");
    tip(thread, event);
  });
  box.addEventListener("pointerleave", () => tip(null));
  box.addEventListener("click", (event) => {
    const thread = event.target.closest(".thread");
    if (thread) view(Number(thread.dataset.cell), 0);
  });
  on(["metric", "x", "pick."], showParallel);
  on(["metric"], parallelControls);
  parallelControls();
  const show = () => {
    seen = true;
    showParallel();
  };
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    show();
  }, { rootMargin: "200px" }).observe(box);
  addEventListener("beforeprint", show);
  let width = 0;
  new ResizeObserver(() => {
    if (width && width !== box.clientWidth) showParallel();
    width = box.clientWidth;
  }).observe(box);
}
