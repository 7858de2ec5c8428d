// One neuron, two margins: which neurons serve one objective at the other's cost.

const POINTS = 2000;
const CELLS = 90;

function tensionPanels() {
  return manifest.tensions.map((entry, number) => {
    const { section, box, text } = panel("Does a neuron serve both objectives?", "", { id: `tension-${number}`, height: 560 });
    const show = () => (section.hidden = entry.model !== state.model);
    whenVisible(box, () => drawTension(box, text, entry));
    subscribe(["model"], show);
    return section;
  });
}

// Effects differ by orders of size: the axis is linear up to a typical distance from the neutral value, and logarithmic beyond.
class Stretched {
  constructor(column) {
    this.neutral = column.neutral;
    this.unit = column.exceededBy(0.3) || column.exceededBy(0) || 1;
    this.reach = Math.asinh(column.exceededBy(0) / this.unit) * 1.05 || 1;
  }
  stretch(distance) {
    return Math.asinh(distance / this.unit);
  }
  place(value) {
    return this.stretch(value - this.neutral);
  }
  axis(title) {
    const values = [0];
    for (let power = Math.ceil(Math.log10(this.unit)); this.stretch(10 ** power) <= this.reach; power++) values.push(10 ** power, -(10 ** power));
    return {
      title: { text: title }, range: [-this.reach, this.reach], tickvals: values.map((value) => this.stretch(value)),
      ticktext: values.map((value) => (value ? markup`${value < 0 ? "−" : ""}10<sup>${Math.round(Math.log10(Math.abs(value)))}</sup>` : "0")),
    };
  }
}

// Every neuron by two columns: how many are in each cell, and which are farthest out. `absent` have no number in one of the columns.
function cloudOf(x, y) {
  const across = new Stretched(x), up = new Stretched(y), total = x.length;
  const counts = Array.from({ length: CELLS }, () => new Float32Array(CELLS));
  const sizes = new Float64Array(total);
  let absent = 0;
  const [xUnit, yUnit] = [x, y].map((column) => column.exceededBy(0.3) || 1);
  const cell = (axis, value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((axis.place(value) + axis.reach) / (2 * axis.reach)) * CELLS)));
  for (let i = 0; i < total; i++) {
    const a = x.at(i), b = y.at(i);
    if (Number.isNaN(a + b)) {
      sizes[i] = -1;
      absent++;
      continue;
    }
    counts[cell(up, b)][cell(across, a)]++;
    sizes[i] = Math.hypot((a - x.neutral) / xUnit, (b - y.neutral) / yUnit);
  }
  const order = Float64Array.from(sizes).sort();
  const least = order[Math.max(0, total - POINTS)];
  const largest = [];
  for (let i = 0; i < total && largest.length < POINTS; i++) if (sizes[i] >= Math.max(0, least)) largest.push(i);
  const centre = (axis) => Array.from({ length: CELLS }, (_, i) => ((i + 0.5) / CELLS) * 2 * axis.reach - axis.reach);
  const grey = isDark() ? [[0, "rgba(120,130,140,0)"], [1, "rgba(190,200,210,0.75)"]] : [[0, "rgba(120,130,140,0)"], [1, "rgba(70,80,90,0.75)"]];
  const cells = {
    type: "heatmap", x: centre(across), y: centre(up), z: counts.map((row) => Array.from(row, (n) => (n ? Math.log10(1 + n) : null))),
    customdata: counts.map((row) => Array.from(row)), hovertemplate: markup`%{customdata} neurons<extra></extra>`, colorscale: grey, showscale: false,
  };
  return { x, y, across, up, cells, largest, absent };
}

const pointsOf = ({ x, y, across, up }, name, members, textOf, marker) => ({
  type: "scatter", mode: "markers", name, x: members.map((i) => across.place(x.at(i))), y: members.map((i) => up.place(y.at(i))),
  customdata: members, text: members.map(textOf), hovertemplate: markup`%{text}<extra></extra>`, marker,
});

function openOnClick(box, model) {
  box.removeAllListeners?.("plotly_click");
  box.on("plotly_click", (event) => {
    const point = event.points.find((each) => each.data.type === "scatter");
    if (point) go({ view: "neuron", neuron: placeOf(point.customdata, model) });
  });
}

async function drawTension(box, text, entry) {
  const model = entry.model;
  const [x, y] = await Promise.all(entry.keys.map((key) => columnOf(columnEntry(model, key))));
  const cloud = cloudOf(x, y), { largest, absent } = cloud, total = x.length;
  const left = new Set(largest);
  const groups = Object.entries(entry.sets).map(([label, members]) => [label, members.filter((i) => left.delete(i)), members.length]);
  groups.unshift(["in neither top set", [...left], total - Object.values(entry.sets).reduce((sum, members) => sum + members.length, 0)]);
  const textOf = (j) => markup`neuron ${nameOf(placeOf(j, model))}<br>${entry.objectives[0]} ${figure(x.at(j))}<br>${entry.objectives[1]} ${figure(y.at(j))}`;
  const traces = [cloud.cells, ...groups.map(([label, members, all], i) => pointsOf(cloud, `${label} (${count(all)})`, members, textOf, {
    size: i ? 7 : 4, symbol: i ? SYMBOLS[i - 1] : "circle-open",
    color: i ? (label === "shared" ? colorOf("mixed") : colorOf(label.replace(/-only$/, ""), i)) : theme().faint,
  }))];
  describe(text,
    `Each neuron's estimated effect on both mean margins of the ${model} model. Right: it raises the ${entry.objectives[0]} margin; up: the ${entry.objectives[1]} margin; ` +
    "lower right and upper left it serves one at the other's cost. Click a point to open it.", [
      `The effects: ${entry.about}. Axes are linear near 0 and logarithmic beyond.`,
      `Grey cells count all ${count(total - absent)} neurons (darker: more, on a logarithmic scale); the ${count(largest.length)} farthest out are points, coloured and shaped by ` +
        `whether they are among the top ${Math.round(entry.fraction * 1000) / 10} % of each margin's supporters, or of both (shared).` +
        (absent ? ` ${count(absent)} neurons have no number on one of the margins, and are not shown.` : ""),
      entry.conflict,
    ]);
  await plot(box, traces, {
    xaxis: cloud.across.axis(`effect on the ${entry.objectives[0]} margin (reward units)`),
    yaxis: cloud.up.axis(`effect on the ${entry.objectives[1]} margin (reward units)`),
    legend: { y: 1.02 },
  });
  openOnClick(box, model);
}
