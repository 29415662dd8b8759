// The controls around the chart, and the answers beside it.

function chartControls() {
  const others = D.metrics.filter((name) => !qualityOf(name)), names = new Set([...axisOf.keys(), ...Object.keys(D.keys)]);
  const known = new Set(D.cells.flatMap((cell) => Object.keys(cell.values)));
  const axes = [
    ...Object.entries(D.costs).filter(([name]) => known.has(name)), ...[...names].filter((name) => !known.has(name)).map((name) => [name, name]),
    ...D.metrics.filter((name) => !(name in D.costs)).map((name) => [name, name])];
  const set = (name) => (value) => put({ [name]: value === true ? "1" : value === false ? "0" : value });
  const coloured = D.axes.filter((axis) => axis.name !== get("x"));
  const save = (kind) => make("button", { type: "button", id: `save-${kind}`, onclick: () => savePicture(drawChart(shownCurves(), 860, 500, true), fileName(), kind) }, kind.toUpperCase());
  redraw($("#chart-controls"),
    choice("Metric", [...D.qualities.map(({ name }) => [name, name]), ...others.map((name) => [name, name])], get("metric"), (metric) => put({ metric, logy: "" })),
    choice("X axis", axes, get("x"), (x) => put({ x, logx: "" })),
    ...(D.conditions.length > 1 ? [choice("Condition", [["", "any"], ...D.conditions.map((name) => [name, name])], get("condition"), set("condition"))] : []),
    ...(coloured.length > 1 ? [choice("Colour by", [["", "automatic"], ...coloured.map(({ name }) => [name, name])], get("colour"), (colour) => put({ colour, hidden: "" }))] : []),
    ...(isWords(get("x")) ? [] : [toggle("Log x", "log-x", chartNow.logx, set("logx"))]),
    toggle("Log y", "log-y", chartNow.logy, set("logy")),
    toggle("Intervals", "intervals", withIntervals(), set("intervals")),
    make("span", { className: "field" }, "Save", make("span", { className: "stepper" }, save("svg"), save("png"))));
}

const fileName = () => `${get("metric")} over ${get("x")}`.replace(/[^\w.-]+/g, "_");

function showChart() {
  const box = $("#chart-box");
  chartNow.curves = curvesOf(get("metric"), get("x"));
  const curves = shownCurves();
  Object.assign(box.dataset, { metric: get("metric"), x: get("x") });
  const width = Math.max(280, box.parentElement.clientWidth);
  const chart = drawChart(curves, width, Math.min(460, Math.max(300, Math.round(width * 0.6))), false);
  box.hidden = !chartNow.points.length && curves.length === chartNow.curves.length;
  $("#no-chart").hidden = !box.hidden;
  const first = $("[data-cell]", chart);
  if (first) first.setAttribute("tabindex", 0);
  box.replaceChildren(chart);
  chartControls();
  showLegend(chart);
  chartNote(chart);
}

function showLegend(chart) {
  const hidden = hiddenLooks(), looks = [...new Map(chartNow.curves.map((curve) => [curve.look, curve])).values()];
  const flip = (look) => {
    const now = hiddenLooks();
    if (!now.delete(look)) now.add(look);
    put({ hidden: now.size ? JSON.stringify([...now]) : "" });
  };
  const entries = looks.map((curve) => {
    const symbol = draw("svg", { width: 18, height: 14, viewBox: "-9 -7 18 14", "aria-hidden": "true" }, mark(curve.style));
    const button = make("button", { type: "button", className: `c${curve.style % COLOURS}`, "data-style": curve.style, "aria-pressed": String(!hidden.has(curve.look)), onclick: () => flip(curve.look) }, symbol, curve.look);
    const light = (on) => {
      $("#chart-box .chart")?.classList.toggle("busy", on);
      for (const group of $$(`#chart-box .series[data-style="${curve.style}"]`)) group.classList.toggle("lit", on);
    };
    button.onpointerenter = (event) => { if (event.pointerType === "mouse" && !hiddenLooks().has(curve.look)) light(true); };
    button.onpointerleave = () => light(false);
    return make("li", {}, button);
  });
  if ($(".front", chart)) {
    const line = draw("svg", { width: 26, height: 12, "aria-hidden": "true" }, draw("path", { class: "front", d: "M0 2H13V10H26" }));
    entries.push(make("li", { className: "front-key" }, line, FRONT));
  }
  redraw($("#legend"), ...entries);
}

function chartNote(chart) {
  const several = D.cells.some((cell) => cell.seeds > 1), texts = [];
  if ($(".bars", chart)) texts.push(`${$(".band", chart) ? "Bars and bands" : "Bars"} are 95 % intervals${several ? ": of cells with several seeds, of the mean over the seeds (Student's t), else for other noise" : " for other noise"}.`);
  if ($(".front", chart)) texts.push("No cell as cheap as a cell on the Pareto front is better" + (D.conditions.length > 1 ? ", of those of the same condition." : "."));
  if (chartNow.off) texts.push(`${chartNow.off} cells at or below 0 have no place on a logarithmic axis.`);
  if (chartNow.curves.length > 1) texts.push("Click a name to hide its line.");
  $("#chart-note").textContent = texts.join(" ");
}

function showAnswers() {
  const box = $("#answer-box"), metric = get("metric"), cost = get("x") in D.costs ? get("x") : D.cost;
  const rows = (D.answers[`${metric} ${cost}`] ?? []).filter(({ best }) => inCondition(best));
  box.hidden = !rows.length;
  if (!rows.length) {
    $("#answer-note").textContent = qualityOf(metric) ? "No finished cell has both this metric and a cost." : `${metric} is no metric of quality: nothing is ranked by it.`;
    return;
  }
  box.dataset.answers = metric;
  $("caption", box).textContent = `Best ${metric} within a budget`;
  const named = (labels) => labels.slice(0, 3).join("; ") + (labels.length > 3 ? `; and ${labels.length - 3} more` : "");
  const heads = [`≤ ${D.short[cost]}`, "best cell", metric, "no significant difference to"];
  $("thead", box).replaceChildren(make("tr", {}, ...heads.map((text, index) => make("th", { scope: "col", className: index === 2 ? "value" : "" }, text))));
  const most = Math.max(...rows.map(({ best }) => decimals(number(D.cells[best].values[metric][0]))));
  const body = make("tbody"), several = new Set(rows.map(({ best }) => D.cells[best].condition)).size > 1;
  let last = null;
  for (const row of rows) {
    const cell = D.cells[row.best], [value, low, high] = cell.values[metric];
    if (several && cell.condition !== last) body.append(make("tr", { className: "part" }, make("th", { colSpan: 4, scope: "rowgroup" }, D.conditions[cell.condition])));
    last = cell.condition;
    const open = make("button", { type: "button", className: "link", "data-open": row.best, onclick: () => view(row.best, 0) }, cell.label);
    const name = row.alone || row.compared ? [open] : ["undecided; lowest: ".replace("lowest", qualityOf(metric).higher ? "highest" : "lowest"), open];
    const ties = row.alone ? "the only cell" : !row.compared ? "not compared" : row.ties.length ? named(row.ties.map((tie) => D.cells[tie].label)) : row.others ? `${row.others} others` : "none";
    body.append(make("tr", {}, make("th", { scope: "row" }, number(row.budget)), make("td", {}, ...name),
      make("td", { className: "value" }, aligned(number(value), most), ...(low === undefined ? [] : [make("small", {}, `${number(low)} to ${number(high)}`)])), make("td", {}, ties)));
  }
  $("tbody", box).replaceWith(body);
  $("#answer-note").textContent = "Significance: paired comparison below, 5 % level, adjusted for all pairs (Holm)." + (several ? " Cells are ranked only within a condition." : "");
}

/** The cell of a point or line is described beside it, or beside the mouse. */
function tip(point, event) {
  const box = $("#tip");
  box.hidden = !point;
  if (!point) return;
  const index = Number(point.dataset.cell), cell = D.cells[index];
  box.replaceChildren();
  if (cell.pictures[0]) box.append(make("img", { src: cell.pictures[0], alt: "", className: isSmall ? "pixelated" : "" }));
  box.append(make("strong", {}, cell.label));
  for (const name of new Set([get("metric"), get("x"), D.cost, "seconds_per_image"])) {
    if (cell.values[name]) box.append(make("div", {}, `${name} ${metricText(cell, name)}`));
  }
  const place = event ? new DOMRect(event.clientX, event.clientY, 6, 6) : point.getBoundingClientRect(), x = Math.min(place.right + 8, innerWidth - box.offsetWidth - 8);
  const y = place.bottom + 8 + box.offsetHeight > innerHeight ? place.top - box.offsetHeight - 8 : place.bottom + 8;
  box.style.left = `${Math.max(4, x)}px`;
  box.style.top = `${Math.max(4, y)}px`;
}

function setUpChart() {
  const box = $("#charts"), at = (event) => event.target.closest("[data-cell]");
  box.addEventListener("pointermove", (event) => tip(at(event)));
  box.addEventListener("pointerleave", () => tip(null));
  box.addEventListener("focusin", (event) => tip(at(event)));
  box.addEventListener("focusout", () => tip(null));
  box.addEventListener("click", (event) => { if (at(event)) view(Number(at(event).dataset.cell), 0); });
  box.addEventListener("keydown", (event) => {
    const all = $$("[data-cell]", box), here = all.indexOf(document.activeElement);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") view(Number(all[here].dataset.cell), 0);
    else if (by) {
      const next = all[(here + by + all.length) % all.length];
      all[here].setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    } else return;
    event.preventDefault();
  });
  on(CHART_KEYS, showChart);
  on(["metric", "x", "condition"], showAnswers);
  let width = box.clientWidth, waiting;
  new ResizeObserver(() => { // the chart is drawn for the width that it has
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(showChart);
  }).observe(box);
}
