// Layers, and sets: where a quantity is, and which neurons several rankings have in common.

const SHARE = 0.01;

function profilePanel() {
  const { section, box, text } = panel("Where in the model?", "", { id: "profile", height: 380 });
  whenVisible(box, () => state.metric && drawProfile(box, text));
  subscribe(["model", "metric"], () => { section.hidden = !state.metric; refresh(box); });
  return section;
}

async function drawProfile(box, text) {
  const metric = state.metric, model = state.model;
  const names = sameShape(model).filter((name) => columnEntry(name, metric));
  const columns = await Promise.all(names.map((name) => columnOf(columnEntry(name, metric))));
  if (metric !== state.metric || model !== state.model) return;
  const { layers, width } = shapeOf(model);
  const traces = [];
  columns.forEach((column, i) => {
    const sums = new Float64Array(layers), counts = new Float64Array(layers), least = column.exceededBy(SHARE);
    for (let j = 0; j < column.length; j++) {
      const layer = Math.floor(j / width);
      sums[layer] += column.at(j) - column.neutral;
      const far = column.distance(column.bits[j]);
      if (far > 0 && far >= least) counts[layer]++; // where fewer differ than the share, these
    }
    const look = {
      mode: "lines+markers", x: Array.from({ length: layers }, (_, layer) => layer), name: names[i], legendgroup: names[i],
      line: { color: colorOf(names[i], i), dash: DASHES[i % DASHES.length] }, marker: { symbol: SYMBOLS[i % SYMBOLS.length], size: 5 },
    };
    traces.push({ ...look, y: Array.from(sums) }, { ...look, y: Array.from(counts), xaxis: "x2", yaxis: "y2", showlegend: false });
  });
  const away = columns[0].neutral ? ` from ${columns[0].neutral}` : "";
  describe(text,
    `By layer: ${metric}. Left: the sum over the layer's neurons${away ? `, counted${away}` : ""}. Right: how many of the ` +
    `${SHARE * 100} % of neurons farthest${away || " from 0"} lie in each layer. Click a layer to see its neurons in the table.`);
  const axis = { title: { text: "layer" }, dtick: Math.max(1, Math.floor(layers / 10)) };
  await plot(box, traces, {
    xaxis: { ...axis, domain: [0, 0.46] }, xaxis2: { ...axis, domain: [0.56, 1], anchor: "y2" },
    yaxis: { title: { text: `sum (${columns[0].unit})` } }, yaxis2: { title: { text: "neurons" }, anchor: "x2", rangemode: "tozero" },
  });
  box.removeAllListeners?.("plotly_click");
  box.on("plotly_click", (event) => showInTable({ layer: event.points[0].x, set: "" }));
}

function showInTable(filter) {
  go({ view: "overview", ...filter, page: 0 });
  follow(); // now, and not when the address has changed: the table may not be shown yet
  reveal(document.getElementById("section-table"));
}

// The models whose neurons an overlap is of: the chosen one if it can be.
const modelOf = (entry) => {
  const fits = manifest.models.filter((each) => each.layers === entry.layers && each.width === entry.width && columnsOf(each.name).length);
  return (fits.find((each) => each.name === state.model) ?? fits[0])?.name;
};
const MOST_SETS = 6, MOST_REGIONS = 24;

// A panel for each recorded overlap: how many neurons are in just these sets, beside what independent sets would have.
function overlapPanels() {
  return manifest.overlaps.map((entry, number) => {
    const names = Object.keys(entry.sets);
    if (names.length > MOST_SETS) {
      return element("section", { id: `section-overlap-${number}` }, element("h2", {}, "Which top neurons are shared?"), element("p", {}, `Of ${entry.about}: ${names.length} sets have too many combinations to draw; pairs of them are compared below.`));
    }
    const caption =
      `Of ${entry.about}, how many are top neurons of just the marked ones, and of none beside.${2 ** names.length - 1 > MOST_REGIONS ? ` The ${MOST_REGIONS} largest combinations.` : ""}` +
      (modelOf(entry) ? " Click a bar to see its neurons in the table." : "");
    const notes = ["Hatched bars: what sets that are independent within each layer, of the same sizes there, would give."];
    const made = panel("Which top neurons are shared?", caption, { id: `overlap-${number}`, height: 300 + 26 * names.length, notes });
    whenVisible(made.box, () => drawOverlap(made.box, entry, number));
    return made.section;
  });
}

// For each neuron, which sets hold it, as bits.
const membership = (entry) => once(`membership ${entry.name}`, () => {
  const masks = new Uint8Array(entry.layers * entry.width);
  Object.values(entry.sets).forEach((members, k) => members.forEach((i) => (masks[i] |= 1 << k)));
  return masks;
});

const regionName = (names, mask) => {
  const inside = names.filter((_, k) => mask & (1 << k));
  return inside.length === 1 ? `${inside[0]} only` : inside.join(" and ");
};

async function drawOverlap(box, entry, number) {
  const names = Object.keys(entry.sets), masks = membership(entry), regions = 1 << names.length;
  const observed = new Float64Array(regions), expected = new Float64Array(regions);
  for (const mask of masks) observed[mask]++;
  for (let layer = 0; layer < entry.layers; layer++) {
    const shares = names.map(() => 0);
    for (let i = layer * entry.width; i < (layer + 1) * entry.width; i++) names.forEach((_, k) => (shares[k] += masks[i] & (1 << k) ? 1 / entry.width : 0));
    for (let mask = 1; mask < regions; mask++) expected[mask] += shares.reduce((product, share, k) => product * (mask & (1 << k) ? share : 1 - share), entry.width);
  }
  const order = Array.from({ length: regions - 1 }, (_, i) => i + 1).filter((mask) => observed[mask] || expected[mask] >= 0.5).sort((a, b) => observed[b] - observed[a]).slice(0, MOST_REGIONS);
  const x = order.map((_, i) => i), labels = order.map((mask) => regionName(names, mask));
  const bars = (values, look) => ({ type: "bar", x, y: values, text: values.map((value) => count(Math.round(value))), textposition: "outside", cliponaxis: false, ...look });
  const dots = (inside) => ({
    type: "scatter", mode: "markers", xaxis: "x", yaxis: "y2", showlegend: false, hoverinfo: "skip",
    x: order.flatMap((mask, i) => names.filter((_, k) => Boolean(mask & (1 << k)) === inside).map(() => i)),
    y: order.flatMap((mask) => names.map((_, k) => k).filter((k) => Boolean(mask & (1 << k)) === inside)),
    marker: { size: 11, color: inside ? theme().text : theme().faint, symbol: inside ? "circle" : "circle-open" },
  });
  await plot(box, [
    bars(order.map((mask) => observed[mask]), { name: "observed", marker: { color: colorOf("helpful") }, customdata: labels, hovertemplate: markup`%{customdata}: %{y}<extra>observed</extra>` }),
    bars(order.map((mask) => expected[mask]), { name: "expected by chance, layers matched", marker: { color: theme().faint, pattern: { shape: "/", solidity: 0.3, fillmode: "overlay" } }, customdata: labels, hovertemplate: markup`%{customdata}: %{y:.1f}<extra>expected</extra>` }),
    dots(true), dots(false),
  ], {
    barmode: "group", margin: { l: 110, r: 20, t: 40, b: 20 },
    xaxis: { showticklabels: false, anchor: "y2", zeroline: false, showgrid: false },
    yaxis: { title: { text: "neurons" }, domain: [0.12 + 0.07 * names.length, 1] },
    yaxis2: { tickvals: names.map((_, k) => k), ticktext: names.map((name) => short(name, 24)), domain: [0, 0.08 + 0.07 * names.length], range: [names.length - 0.5, -0.5], zeroline: false, showgrid: false },
  });
  box.removeAllListeners?.("plotly_click");
  box.on("plotly_click", (event) => {
    const mask = order[event.points[0].x];
    if (mask && modelOf(entry)) showInTable({ model: modelOf(entry), layer: null, set: `overlap:${number}:${mask}` });
  });
}

// Sets that the table can show, of the model's shape: { key, label, has(index) }.
const setsOf = (model) => [...ownSet(model), ...setsOfRun(model)];
const setsOfRun = (model) => once(`sets ${model}`, () => {
  const found = [], shape = shapeOf(model);
  manifest.tensions.forEach((tension, number) => {
    if (tension.model !== model) return;
    for (const [kind, sets] of Object.entries({ top: tension.sets, "clear on both": tension.quadrants }))
      for (const [label, members] of Object.entries(sets)) {
        const inside = new Set(members);
        found.push({ key: `tension:${number}:${kind}:${label}`, label: `${label} (${kind}), ${count(members.length)}`, has: (i) => inside.has(i) });
      }
  });
  manifest.repairs.forEach((repair, number) => {
    if (repair.model !== model || repair.width !== shape.width || !repair.neurons.length) return;
    const inside = new Set(repair.neurons);
    found.push({ key: `repair:${number}`, label: `edited by the repair, ${count(repair.neurons.length)}`, has: (i) => inside.has(i) });
  });
  manifest.overlaps.forEach((entry, number) => {
    if (entry.layers !== shape.layers || entry.width !== shape.width || Object.keys(entry.sets).length > MOST_SETS) return;
    const names = Object.keys(entry.sets), masks = membership(entry);
    for (let wanted = 1; wanted < 1 << names.length; wanted++)
      found.push({ key: `overlap:${number}:${wanted}`, label: `${regionName(names, wanted)} (top by ${entry.name})`, has: (i) => masks[i] === wanted });
  });
  return found;
});
