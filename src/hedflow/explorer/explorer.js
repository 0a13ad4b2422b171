/* What a click does in the explorer. Data and charts come from Python (data.py, charts.py); names come from files and
   are only ever set as text. `hedflow.show*` are the same functions that the controls call. */
"use strict";

function hedflowExplorer(data, charts) {
  const at = (id) => document.getElementById(id);
  const real = (x) => (x === null || x === undefined ? null : x / data.scale);
  const fixed = (x, digits) => {
    if (x === null) return "";
    const text = Math.abs(x).toFixed(digits);
    return x < 0 && Number(text) !== 0 ? "\u2212" + text : text;
  };
  const signed = (x, digits) => (x === null || x < 0 ? fixed(x, digits) : "+" + x.toFixed(digits));
  const whole = (x) => x.toLocaleString("en");
  const drugs = data.drugs;
  const high = new Set(data.high_error);
  const methods = new Map(data.methods.map((method) => [method.name, method]));
  const starts = offsets(data.pairs.count);
  const listStarts = offsets(data.lists.count);
  const state = { method: data.reference, x: "auc_mean", colour: null, drug: null, list: null, query: "" };
  const views = {};

  function offsets(counts) {
    let sum = 0;
    return counts.map((count) => (sum += count) - count);
  }

  function element(tag, text, attributes) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    Object.entries(attributes || {}).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  }

  function replace(id, children) {
    at(id).replaceChildren(...children);
  }

  /* A table: header cells as [text, class], rows as {cells, act, mark}; a row that acts is a button for keys too. */
  function table(id, header, rows) {
    const head = element("tr");
    header.forEach(([text, kind]) => head.append(element("th", text, kind ? { class: kind } : {})));
    const body = rows.map((row) => {
      const line = element("tr", null, row.mark ? { class: row.mark } : {});
      row.cells.forEach((text, i) => line.append(element("td", text, header[i][1] ? { class: header[i][1] } : {})));
      if (row.act) {
        line.tabIndex = 0;
        line.addEventListener("click", row.act);
        line.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            row.act();
          }
        });
      }
      return line;
    });
    const top = element("thead");
    top.append(head);
    const rest = element("tbody");
    rest.append(...body);
    replace(id, [top, rest]);
  }

  function options(id, entries, value, act) {
    replace(id, entries.map(([key, text]) => element("option", text, { value: key })));
    at(id).value = value;
    at(id).addEventListener("change", () => act(at(id).value));
  }

  /* The most frequent groups by name; the rest are `other`, and what nothing is known of is `unknown`. */
  function grouped(names) {
    const count = new Map();
    names.forEach((name) => count.set(name, (count.get(name) || 0) + 1));
    const kept = [...count.keys()].filter((name) => name !== "unknown" && name !== "");
    kept.sort((a, b) => count.get(b) - count.get(a) || a.localeCompare(b));
    const first = new Set(kept.slice(0, 9));
    const groups = names.map((name) => (first.has(name) ? name : name && name !== "unknown" ? "other" : "unknown"));
    const domain = [...first, "other", "unknown"].filter((name) => groups.includes(name));
    return { groups, domain };
  }

  const groups = {
    group: grouped(drugs.mechanism),
    origin: grouped(drugs.sources.map((text) => (text.includes(", ") ? "several sources" : text))),
    kind: {
      groups: drugs.drug_name.map((_, i) => (high.has(i) ? "high error drug" : "other drug")),
      domain: ["high error drug", "other drug"],
    },
  };

  function near(i) {
    return drugs.nearest[i] ? `${drugs.nearest[i]} (${fixed(real(drugs.similarity[i]), 2)})` : "";
  }

  function drugRows() {
    const errors = data.errors[state.method];
    const rows = drugs.drug_name.map((name, i) => ({
      drug: i,
      name,
      n: drugs.n[i],
      mae: real(errors.mae[i]),
      bias: real(errors.bias[i]),
      mae_z: real(errors.mae_z[i]),
      auc_mean: real(drugs.auc_mean[i]),
      low_share: real(drugs.low_share[i]),
      similarity: real(drugs.similarity[i]),
      near: near(i),
      mechanism: drugs.mechanism[i],
      sources: drugs.sources[i],
      high: high.has(i),
      group: groups.group.groups[i],
      origin: groups.origin.groups[i],
      kind: groups.kind.groups[i],
    }));
    return rows.filter((row) => row.mae !== null);
  }

  /* One drawing of a place after another: of two that overlap both would stay in the page. */
  const drawn = {};
  function draw(id, spec, datasets) {
    const full = JSON.parse(JSON.stringify(spec));
    full.datasets = { ...full.datasets, ...datasets };
    drawn[id] = (drawn[id] || Promise.resolve()).then(async () => {
      if (views[id]) views[id].finalize();
      const made = await vegaEmbed(at(id), full, { actions: false, renderer: "svg" });
      views[id] = made.view;
      return made.view;
    });
    return drawn[id];
  }

  async function drawScatter() {
    const spec = JSON.parse(JSON.stringify(charts.scatter));
    spec.layer.forEach((layer) => (layer.encoding.x = charts.x[state.x]));
    const colour = JSON.parse(JSON.stringify(charts.colour[state.colour]));
    const domain = groups[state.colour].domain;
    const range = colour.scale.range;
    const grey = { other: range[range.length - 2], unknown: range[range.length - 1], "other drug": range[range.length - 2] };
    if (state.colour === "kind") grey["high error drug"] = range[4];
    colour.scale = { domain, range: domain.map((name, i) => grey[name] || range[i]) };
    spec.layer[0].encoding.color = colour;
    const view = await draw("scatter", spec, { drugs: drugRows() });
    view.addEventListener("click", (event, item) => {
      if (item && item.datum && item.datum.drug !== undefined) showDrug(item.datum.drug);
    });
    await view.signal("chosen", state.drug === null ? -1 : state.drug).signal("query", state.query).runAsync();
  }

  function drawDrugList() {
    const rows = drugRows().filter((row) => row.name.toLowerCase().includes(state.query));
    rows.sort((a, b) => b.mae - a.mae);
    at("listed").textContent = state.query
      ? `${rows.length} of ${drugs.drug_name.length} drugs have this in their name`
      : `${drugs.drug_name.length} drugs, worst first; \u25cf high error drug of ${methods.get(data.reference).shown}`;
    const header = [["", ""], ["drug", ""], ["MAE", "n"], ["z", "n"], ["bias", "n"], ["pairs", "n"]];
    table("drugs", header, rows.slice(0, 300).map((row) => ({
      cells: [
        row.high ? "\u25cf" : "", row.name, fixed(row.mae, 3), fixed(row.mae_z, 1), signed(row.bias, 3), whole(row.n),
      ],
      act: () => showDrug(row.drug),
      mark: row.drug === state.drug ? "chosen" : "",
    })));
  }

  function drawFacts() {
    const i = state.drug;
    at("drug-name").textContent = drugs.drug_name[i];
    const facts = [
      ["id", drugs.drug_id[i]],
      ["mechanism", drugs.mechanism[i]],
      ["target", drugs.target[i].split("|").join("; ")],
      ["sources", drugs.sources[i]],
      ["tested", `${whole(drugs.n[i])} pairs on ${whole(drugs.n_cells[i])} cell lines`],
      ["true AUC", `mean ${fixed(real(drugs.auc_mean[i]), 2)}, SD ${fixed(real(drugs.auc_sd[i]), 2)}; ` +
        `below ${data.low_auc} in ${fixed(100 * real(drugs.low_share[i]), 0)} %`],
      ["nearest training drug", near(i)],
    ].filter(([, text]) => text);
    replace("facts", facts.flatMap(([key, text]) => [element("dt", key), element("dd", text)]));
    const rows = data.methods.map((method) => ({ method, errors: data.errors[method.name] }));
    table("methods", [["method", ""], ["MAE", "n"], ["z", "n"], ["bias", "n"]], rows.map((row) => ({
      cells: [
        row.method.shown + (row.method.naive ? " (naive)" : ""), fixed(real(row.errors.mae[i]), 3),
        fixed(real(row.errors.mae_z[i]), 1), signed(real(row.errors.bias[i]), 3),
      ],
      mark: row.method.name === state.method ? "chosen" : "",
      act: () => showMethod(row.method.name),
    })));
  }

  function drugCells(i, method) {
    const predicted = data.pairs.auc_pred[method];
    const rows = [];
    for (let k = starts[i]; k < starts[i] + data.pairs.count[i]; k += 1) {
      rows.push({
        cell: data.cells[data.pairs.cell[k]],
        source: data.pairs.sources[data.pairs.source[k]],
        auc: real(data.pairs.auc[k]),
        auc_pred: real(predicted[k]),
      });
    }
    return rows.filter((row) => row.auc_pred !== null);
  }

  /* The method whose single predictions can be shown: the chosen one, else the reference. */
  function kept(lookup) {
    return lookup[state.method] ? state.method : data.reference;
  }

  function instead(method) {
    if (method === state.method) return "";
    return ` Of ${methods.get(state.method).shown} no single predictions are in this page: ${methods.get(method).shown} is shown.`;
  }

  async function drawCells() {
    const method = kept(data.pairs.auc_pred);
    const rows = drugCells(state.drug, method);
    const all = drugs.n[state.drug];
    at("cells-about").textContent =
      (rows.length < all ? `${rows.length} of ${whole(all)} pairs, evenly over their true AUC` : `all ${rows.length} pairs`) +
      `; ${methods.get(method).shown}. Dotted: AUC ${data.low_auc}.` + instead(method);
    await draw("cells", charts.cells, { cells: rows });
  }

  function candidates(list, method) {
    const found = data.lists.by[method];
    const rows = [];
    for (let k = listStarts[list]; k < listStarts[list] + data.lists.count[list]; k += 1) {
      if (found.rank_pred[k] === null) continue;
      const row = {
        drug: data.lists.drug[k],
        name: drugs.drug_name[data.lists.drug[k]],
        auc: real(data.lists.auc[k]),
        auc_pred: real(found.auc_pred[k]),
        rank_true: data.lists.rank_true[k],
        rank_pred: found.rank_pred[k],
      };
      const predicted = row.rank_pred <= data.top_k;
      const best = row.rank_true <= data.top_k;
      row.kind = predicted && best ? "both: a hit" : predicted ? "predicted best only" : "truly best only";
      if (predicted || best) rows.push(row);
    }
    return rows.sort((a, b) => a.rank_pred - b.rank_pred);
  }

  function candidateRow(row, n) {
    return {
      cells: [
        whole(row.rank_pred), row.name, fixed(row.auc_pred, 3), fixed(row.auc, 3), `${row.rank_true} of ${n}`,
        row.kind === "both: a hit" ? "hit" : row.kind === "predicted best only" ? "miss" : "not found",
      ],
      act: () => showDrug(row.drug),
      mark: row.kind === "both: a hit" ? "hit" : "",
    };
  }

  async function drawList() {
    const list = state.list;
    const method = kept(data.lists.by);
    const rows = candidates(list, method);
    const n = data.lists.n[list];
    const first = rows.filter((row) => row.rank_pred <= data.top_k);
    const hits = first.filter((row) => row.kind === "both: a hit").length;
    const flat = `${methods.get(method).shown} predicts the same for all drugs of this line: it has no candidates.`;
    at("list-about").textContent = first.length
      ? `${data.cells[data.lists.cell[list]]} in ${data.lists.source[list]}, ${n} tested drugs, ${methods.get(method).shown}: ` +
        `${hits} of the ${data.top_k} truly best are among the ${data.top_k} predicted best ` +
        `(by chance ${fixed((data.top_k * data.top_k) / n, 1)}).` + instead(method)
      : flat;
    const header = [["place", "n"], ["drug", ""], ["predicted AUC", "n"], ["true AUC", "n"], ["true place", "n"], ["", ""]];
    table("candidates", header, first.map((row) => candidateRow(row, n)));
    table("missed", header, rows.filter((row) => row.rank_pred > data.top_k).map((row) => candidateRow(row, n)));
    const view = await draw("line", charts.line, { line: rows });
    view.addEventListener("click", (event, item) => {
      if (item && item.datum && item.datum.drug !== undefined) showDrug(item.datum.drug);
    });
  }

  function listsOf(cell) {
    return data.lists.cell.map((place, list) => [place, list]).filter(([place]) => place === cell).map(([, list]) => list);
  }

  async function showMethod(name) {
    state.method = name;
    at("method").value = name;
    at("method-about").textContent = methods.get(name).naive ? "a naive baseline: no training sees the drug" : "";
    drawDrugList();
    await drawScatter();
    if (state.drug !== null) {
      drawFacts();
      await drawCells();
    }
    if (state.list !== null) await drawList();
  }

  async function showDrug(i) {
    state.drug = i;
    await views.scatter.signal("chosen", i).runAsync();
    drawDrugList();
    drawFacts();
    await drawCells();
  }

  async function showCell(cell, source) {
    const lists = listsOf(cell);
    if (lists.length === 0) {
      at("list-about").textContent =
        `${data.cells[cell]}: no source tested ${2 * data.top_k} drugs or more on it, so there is nothing to rank.`;
      return;
    }
    at("cell").value = data.cells[cell];
    replace("source", lists.map((list) => element("option", data.lists.source[list], { value: list })));
    const wanted = lists.find((list) => data.lists.source[list] === source);
    state.list = wanted === undefined ? lists[0] : wanted;
    at("source").value = state.list;
    await drawList();
  }

  async function search(text) {
    state.query = text.trim().toLowerCase();
    drawDrugList();
    await views.scatter.signal("query", state.query).runAsync();
    const exact = drugs.drug_name.findIndex((name) => name.toLowerCase() === state.query);
    if (exact >= 0) await showDrug(exact);
  }

  async function begin() {
    const named = data.methods.map((m) => [m.name, m.shown + (m.naive ? " (naive)" : "")]);
    state.colour = groups.group.domain.some((name) => name !== "unknown")
      ? "group"
      : groups.origin.domain.length > 1 ? "origin" : "kind";
    options("method", named, state.method, showMethod);
    options("x", Object.entries(charts.axis_names), state.x, (x) => { state.x = x; drawScatter(); });
    const colours = Object.entries(charts.colour_names).filter(([key]) => groups[key].domain.length > 1 || key === state.colour);
    options("colour", colours, state.colour, (colour) => { state.colour = colour; drawScatter(); });
    at("search").addEventListener("input", () => search(at("search").value));
    at("source").addEventListener("change", () => { state.list = Number(at("source").value); drawList(); });
    const cells = [...new Set(data.lists.cell)].sort((a, b) => data.cells[a].localeCompare(data.cells[b]));
    replace("cell-names", cells.map((cell) => element("option", null, { value: data.cells[cell] })));
    at("cell").addEventListener("change", () => {
      const wanted = at("cell").value.trim().toLowerCase();
      const cell = cells.find((place) => data.cells[place].toLowerCase() === wanted);
      if (cell === undefined) at("list-about").textContent = `No cell line with candidates is called ${at("cell").value}.`;
      else showCell(cell);
    });
    table("shown", [["", ""]], data.shown.map((row) => ({
      cells: [`${row.why}: ${data.cells[row.cell]} (${row.source})`],
      act: () => showCell(row.cell, row.source),
    })));
    if (data.left_out > 0) {
      at("left-out").textContent =
        `Single predictions of ${data.left_out} methods are left out to keep the page small; their errors by drug are here.`;
    }
    await showMethod(state.method);
    const worst = drugRows().sort((a, b) => b.mae - a.mae)[0];
    if (worst) await showDrug(worst.drug);
    if (data.shown.length) await showCell(data.shown[0].cell, data.shown[0].source);
    else if (cells.length) await showCell(cells[0]);
    else at("list-about").textContent = `No source tested ${2 * data.top_k} drugs or more on a cell line.`;
    at("status").remove();
  }

  window.hedflow = { data, state, views, showMethod, showDrug, showCell, search, drugRows, drugCells, candidates };
  return begin();
}
