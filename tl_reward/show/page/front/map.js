// Every neuron at once: layers up, neurons along; where a pixel stands for several, it shows the one farthest from the neutral value.

const PIXELS = 480;
let byRank = false;

function mapPanel() {
  const order = element("input", { type: "checkbox", id: "map-rank", onchange: (event) => { byRank = event.target.checked; refresh(box); } });
  const controls = [element("div", { class: "pager" }, element("label", { class: "row" }, order, "sort each layer by value"), versusControl())];
  const { section, box, text } = panel("Every neuron", "", { id: "map", height: 520, controls });
  whenVisible(box, () => state.metric && drawMap(box, text));
  subscribe(["model", "metric", "versus", "own", "ownName"], () => { section.hidden = !state.metric; refresh(box); });
  return section;
}

async function drawMap(box, text) {
  const shown = { model: state.model, metric: state.metric, versus: compared() };
  const column = shown.versus ? await differenceOf(shown.metric, shown.model, shown.versus) : await columnOf(columnEntry(shown.model, shown.metric));
  if (shown.model !== state.model || shown.metric !== state.metric || shown.versus !== compared()) return; // somebody was faster
  const { layers, width } = shapeOf(state.model);
  const order = byRank ? rankOrder(column, layers, width) : null;
  const reach = column.exceededBy(0.001) || column.exceededBy(0) || 1;
  describe(text, `${notCompared()}${column.about} Blue is above ${figure(column.neutral)}, red below. Click to open a neuron; drag to zoom.`, [
    `Each pixel shows the neuron of its place that is farthest from ${figure(column.neutral)}. The scale of colours ends at the 99.9th percentile of sizes, ${figure(reach)} ${column.unit}.`,
  ]);
  // What the reader has zoomed to stays, also for another quantity of the same model.
  const view = `${manifest.models.indexOf(shapeOf(state.model))} ${byRank}`;
  const inView = () => {
    const [low, high] = box.layout?.uirevision === view ? box.layout.xaxis.range : [-0.5, width - 0.5];
    return [Math.max(0, Math.floor(low + 0.5)), Math.min(width, Math.ceil(high + 0.5))];
  };
  let pixels = pool(column, layers, width, order, ...inView());
  const trace = (pooled) => ({
    type: "heatmap", z: pooled.z, x: pooled.x, customdata: pooled.text, hovertemplate: markup`%{customdata}<extra></extra>`,
    colorscale: divergent(), zmin: column.neutral - reach, zmax: column.neutral + reach, zmid: column.neutral,
    colorbar: { title: { text: column.unit, side: column.unit.length > 24 ? "right" : "top" }, thickness: 14 },
  });
  await plot(box, [trace(pixels), ownMarks(shown.model, order, width)], {
    xaxis: { title: { text: byRank ? "rank of the neuron in its layer" : "neuron" }, range: [-0.5, width - 0.5], zeroline: false },
    yaxis: { title: { text: "layer" }, range: [-0.5, layers - 0.5], dtick: Math.max(1, Math.floor(layers / 10)), zeroline: false },
    uirevision: view,
  });
  box.removeAllListeners?.("plotly_click");
  box.removeAllListeners?.("plotly_relayout");
  box.on("plotly_click", (event) => {
    const mark = event.points.find((each) => each.data.type === "scatter");
    const [layer, bin] = mark ? [] : event.points[0].pointIndex;
    go({ view: "neuron", neuron: placeOf(mark ? mark.customdata : pixels.winner[layer][bin], state.model) });
  });
  box.on("plotly_relayout", () => {
    const [from, to] = inView();
    if (to <= from || (from === pixels.from && to === pixels.to)) return;
    pixels = pool(column, layers, width, order, from, to);
    const { z, x, customdata } = trace(pixels);
    replot(box, { z: [z], x: [x], customdata: [customdata] }, [0]);
  });
}

// The reader's own set.
function ownMarks(model, order, width) {
  const indices = ownIndices(model), along = new Map(order && indices.length ? Array.from(order, (i, at) => [i, at % width]) : []);
  return {
    type: "scatter", mode: "markers", showlegend: false, customdata: indices, x: indices.map((i) => along.get(i) ?? i % width), y: indices.map((i) => Math.floor(i / width)),
    text: indices.map((i) => `neuron ${nameOf(placeOf(i, model))}, of ${ownName()}`), hovertemplate: markup`%{text}<extra></extra>`,
    marker: { symbol: "circle-open", size: 13, color: theme().text, line: { width: 2 } },
  };
}

// The neurons of each layer, from the largest value to the smallest.
function rankOrder(column, layers, width) {
  return once(`order ${column.values}`, () => {
    const order = new Uint32Array(layers * width);
    for (let layer = 0; layer < layers; layer++) {
      const own = Uint32Array.from({ length: width }, (_, neuron) => layer * width + neuron);
      order.set(column instanceof Difference ? column.sorted(own) : sorted(column, own, true), layer * width);
    }
    return order;
  });
}

function pool(column, layers, width, order, from, to) {
  const bins = Math.min(PIXELS, to - from), step = (to - from) / bins;
  const edges = Array.from({ length: bins + 1 }, (_, bin) => from + Math.round(bin * step));
  const z = [], text = [], winner = [];
  for (let layer = 0; layer < layers; layer++) {
    const values = new Float32Array(bins), winners = new Uint32Array(bins), labels = new Array(bins);
    for (let bin = 0; bin < bins; bin++) {
      let best = -1, farthest = -Infinity;
      for (let at = edges[bin]; at < edges[bin + 1]; at++) {
        const i = order ? order[layer * width + at] : layer * width + at;
        const distance = column.size(i);
        if (best < 0 || distance > farthest || (Number.isNaN(farthest) && !Number.isNaN(distance))) [best, farthest] = [i, distance]; // any number before none
      }
      winners[bin] = best;
      values[bin] = column.at(best);
      const many = edges[bin + 1] - edges[bin];
      labels[bin] = markup`neuron ${layer}.${best - layer * width}<br>${column.told(best)}${many > 1 ? ` (farthest of ${many})` : ""}`;
    }
    z.push(values);
    text.push(labels);
    winner.push(winners);
  }
  const x = edges.slice(0, -1).map((edge, bin) => (edge + edges[bin + 1] - 1) / 2);
  return { z, x, text, winner, from, to };
}
