// Results.

Object.assign(defaults, { sort: "", filter: "", show: "" });

function resultColumns() {
  return $$("#result-table thead th").map((head, index) => ({ head, index, name: head.dataset.column }));
}

/** The columns that are hidden unless they are asked for: metrics that are neither quality nor cost, and a status that all share. */
function isExtra({ head, name }) {
  if (name === "status") return D.cells.every(({ status }) => status === "done");
  return head.dataset.metric !== undefined && !qualityOf(name) && name !== D.cost && name !== "seconds_per_image";
}

const shownColumns = () => {
  const named = getData("show", null);
  return new Set(resultColumns().filter((column) => Array.isArray(named) ? named.includes(column.name) : !isExtra(column)).map(({ name }) => name).concat("cell"));
};

function resultControls() {
  const box = $("#result-controls"), shown = shownColumns(), all = resultColumns().slice(1);
  const filter = make("input", { id: "filter", type: "search", placeholder: "ddim 10", autocomplete: "off", value: get("filter"), oninput: () => put({ filter: filter.value }) });
  const flip = (name) => (on) => {
    const now = shownColumns();
    if (on) now.add(name); else now.delete(name);
    put({ show: JSON.stringify(all.map((column) => column.name).filter((own) => now.has(own))) });
  };
  const list = make("div", { className: "menu" }, ...all.map(({ name }, index) => toggle(name, `column-${index}`, shown.has(name), flip(name))));
  const hidden = all.filter(({ name }) => !shown.has(name)).length;
  const menu = make("details", { id: "columns", open: $("#columns")?.open ?? false }, make("summary", {}, `Columns${hidden ? ` (${hidden} hidden)` : ""}`), list);
  redraw(box, make("label", {}, "Filter ", filter), menu,
    make("button", { type: "button", id: "save-results", onclick: saveResults }, "Save as CSV"),
    make("button", { type: "button", id: "copy-commands", onclick: copyCommands }, "Copy the commands"));
}

const shownRows = () => [...$("#result-table tbody").rows].filter((row) => !row.hidden);

/** The rows and columns that are shown, intervals and the commands of the runs included. */
function saveResults() {
  const shown = shownColumns(), columns = resultColumns().filter(({ name }) => shown.has(name));
  const heads = columns.flatMap(({ name, head }) => head.dataset.metric === undefined ? [name] : [name, `${name}/low`, `${name}/high`]);
  const rows = shownRows().map((row) => {
    const cell = D.cells[row.dataset.cell];
    const fields = columns.flatMap(({ name, head, index }) => head.dataset.metric === undefined ? [row.children[index].textContent.trim()] : [0, 1, 2].map((end) => cell.values[name]?.[end] ?? ""));
    return [...fields, Object.values(cell.commands).join("\n")];
  });
  saveTable("results.csv", [[...heads, "commands"], ...rows]);
}

function copyCommands() {
  const commands = shownRows().flatMap((row) => Object.values(D.cells[row.dataset.cell].commands)).filter(Boolean);
  copyText(commands.join("\n"), `${commands.length} command${commands.length === 1 ? "" : "s"}`);
}

function showColumns() {
  const shown = shownColumns(), hidden = resultColumns().filter(({ name }) => !shown.has(name)).map(({ index }) => index);
  const table = $("#result-table");
  for (const row of table.rows) [...row.children].forEach((cell, index) => { cell.hidden = hidden.includes(index); });
}

function sortResults() {
  const sort = get("sort"), down = sort.startsWith("-"), name = down ? sort.slice(1) : sort, column = resultColumns().find((one) => one.name === name);
  for (const { head } of resultColumns()) head.setAttribute("aria-sort", head !== column?.head ? "none" : down ? "descending" : "ascending");
  const body = $("#result-table tbody"), key = (row) => column ? row.children[column.index].dataset.sort : row.dataset.cell;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // cells without a value stay at the end
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

function filterResults() {
  const words = get("filter").toLowerCase().split(/\s+/).filter(Boolean), kept = selections();
  for (const row of $("#result-table tbody").rows) {
    const text = words.length ? row.textContent.toLowerCase() : "";
    row.hidden = !words.every((word) => text.includes(word)) || !isSelected(Number(row.dataset.cell), kept);
  }
  const count = shownRows().length;
  const texts = count < D.cells.length ? [`${count} of ${D.cells.length} cells are shown.`] : [];
  if ($("#result-table .best")) texts.push("“best” marks the best value of a metric, “≈” values that are not significantly different from it" + (D.conditions.length > 1 ? ", of each condition." : "."));
  texts.push("Intervals are 95 %.");
  const table = $("#result-table");
  if (table.scrollWidth > table.parentElement.clientWidth + 1) texts.push("The table goes on to the right: scroll it, or hide columns.");
  $("#result-note").textContent = texts.join(" ");
}

/** Mark the best values; metrics in which nothing was compared have none. */
function markResults() {
  for (const { head, index } of resultColumns()) {
    const metric = head.dataset.metric;
    if (!metric || !D.best[metric]) continue;
    for (const row of $("#result-table tbody").rows) {
      const rank = markOf(Number(row.dataset.cell), metric);
      if (!rank) continue;
      row.children[index].classList.add(rank);
      row.children[index].prepend(make("span", { className: "rank", title: rank === "best" ? `best ${metric}` : "not significantly different from the best" }, rank === "best" ? "best" : "≈"), " ");
    }
  }
}

function setUpResults() {
  for (const { head, name } of resultColumns()) $("button", head).onclick = () => put({ sort: get("sort") === name ? `-${name}` : name });
  on(["show"], () => { showColumns(); resultControls(); filterResults(); });
  on(["sort"], sortResults);
  on(["filter", "pick."], filterResults);
  const menu = () => $("#columns");
  addEventListener("click", (event) => { if (menu().open && !event.composedPath().includes(menu())) menu().open = false; });
  $("#result-controls").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu().open) return;
    menu().open = false;
    $("summary", menu()).focus();
  });
  markResults();
}
