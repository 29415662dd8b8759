// Metric and cost: chart, answers, pairs and captions follow the same choice.

const state = { metric: D.qualities.length ? D.qualities[0].name : "", cost: D.cost };
const followers = [];

function choose(change) {
  Object.assign(state, change);
  for (const follow of followers) follow();
}

function showCharts() {
  let any = false;
  for (const box of $$(".chart-box")) {
    box.hidden = box.dataset.metric !== state.metric || box.dataset.cost !== state.cost;
    any = any || !box.hidden;
  }
  $("#no-chart").hidden = any;
  for (const table of $$("[data-answers]")) table.hidden = table.dataset.answers !== state.metric;
}

function setUpCharts() {
  const metric = $("#metric"), cost = $("#cost");
  metric.onchange = () => choose({ metric: metric.value });
  cost.onchange = () => choose({ cost: cost.value });
  followers.push(() => { metric.value = state.metric; cost.value = state.cost; }, showCharts);
  for (const box of $$(".chart-box")) {
    const front = new Set((D.fronts[`${box.dataset.metric}|${box.dataset.cost}`] || []).map(String));
    for (const mark of $$("use[data-cell]", box)) mark.classList.toggle("on-front", front.has(mark.dataset.cell));
  }
  const charts = $("#charts");
  charts.addEventListener("pointermove", (event) => tip(event.target.closest("use[data-cell]"), event));
  charts.addEventListener("pointerleave", () => tip(null));
  charts.addEventListener("click", (event) => {
    const mark = event.target.closest("use[data-cell]");
    if (mark) view(Number(mark.dataset.cell), 0);
  });
  for (const button of $$("#legend button")) {
    const own = () => $$(`.series[data-style="${button.dataset.style}"]`);
    const light = (on) => {
      for (const chart of $$(".chart")) chart.classList.toggle("busy", on);
      for (const group of own()) group.classList.toggle("lit", on);
    };
    button.onclick = () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const group of own()) group.style.display = shown ? "" : "none";
    };
    button.onpointerenter = (event) => { if (event.pointerType === "mouse") light(true); };
    button.onpointerleave = () => light(false);
  }
}

function tip(mark, event) {
  const box = $("#tip");
  box.hidden = !mark;
  if (!mark) return;
  const cell = D.cells[mark.dataset.cell];
  box.replaceChildren();
  if (cell.pictures[0]) box.append(make("img", { src: cell.pictures[0], alt: "", className: D.shrunk ? "" : "pixelated" }));
  box.append(make("strong", {}, cell.label));
  for (const name of new Set([state.metric, D.cost, "nfe", "seconds_per_image"])) {
    if (cell.metrics[name]) box.append(make("div", {}, `${name} ${cell.metrics[name]}`));
  }
  const x = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
  const y = event.clientY + 16 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 12 : event.clientY + 16;
  box.style.left = `${Math.max(4, x)}px`;
  box.style.top = `${Math.max(4, y)}px`;
}
