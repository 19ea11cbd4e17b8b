// Curves: the error by depth, and the training run. Drawn by uPlot.

const charts = new Set();
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]; // there is no half of a call or of an iteration

// A colour of the style sheet as the canvas wants it.
function ink(name) {
  const probe = document.getElementById("theme");
  const before = probe.style.outlineColor;
  probe.style.outlineColor = `var(--${name})`;
  const found = getComputedStyle(probe).outlineColor;
  probe.style.outlineColor = before;
  return found;
}

function chart(box, title, x, series, options = {}) {
  const place = element("div", "", { class: "chart" });
  place.append(element("h3", title));
  const holder = element("div");
  place.append(holder);
  box.append(place);
  const axis = { stroke: () => ink("dim"), grid: { stroke: () => ink("line"), width: 1 }, ticks: { stroke: () => ink("line"), width: 1 } };
  // Of a logarithmic axis the powers of ten; the lines between them are so many that they look like a band.
  const decades = (self, values) => values.map((value) => (power(value) ? value : null));
  // Of many powers only every second, third, ... has room for its name.
  const named = (self, values) => {
    const powers = values.filter((value) => value !== null && power(value)).length;
    const every = Math.max(1, Math.ceil((powers * 16) / (self.bbox.height / devicePixelRatio)));
    return values.map((value) => (value !== null && Math.round(Math.log10(value)) % every === 0 ? power(value) : ""));
  };
  const wide = () => Math.max(280, holder.clientWidth);
  const plot = new uPlot(
    {
      width: wide(),
      height: options.height ?? 260,
      scales: { x: { time: false }, y: options.linear ? {} : { distr: 3, range: options.range } },
      axes: [
        { ...axis, incrs: WHOLE, label: options.along, labelSize: 18, labelGap: 0, size: 34 },
        options.linear
          ? { ...axis, size: 62, values: (self, values) => values.map(digits) }
          : {
              ...axis,
              size: 62,
              grid: { ...axis.grid, filter: decades },
              ticks: { ...axis.ticks, filter: decades },
              values: named,
            },
      ],
      series: [
        { label: options.along, value: (self, at) => (at === null ? "–" : (options.names?.[at] ?? String(at))) },
        ...series.map((one) => ({
          label: one.label,
          scale: "y",
          stroke: () => ink(one.ink),
          width: one.width ?? 1.6,
          dash: one.dash,
          fill: one.band ? () => ink(one.band) : undefined,
          fillTo: one.band ? (self) => self.scales.y.min : undefined,
          points: { show: one.points ?? false, size: 4, stroke: () => ink(one.ink), fill: () => ink(one.ink) },
          value: (self, at, which, i) => (i === null || i === undefined ? "–" : digits(one.told?.[i] ?? at)),
        })),
      ],
      cursor: { drag: { x: true, y: false }, points: { size: 7 } },
      legend: { live: true },
      hooks: { draw: options.mark === undefined ? [] : [(self) => marked(self, options.mark)] },
    },
    [x, ...series.map((one) => one.values)],
    holder,
  );
  if (options.click) holder.addEventListener("click", () => plot.cursor.idx !== null && plot.cursor.idx !== undefined && options.click(plot.cursor.idx));
  new ResizeObserver(() => wide() !== plot.width && plot.setSize({ width: wide(), height: plot.height })).observe(holder);
  charts.add(plot);
  return plot;
}

function power(value) {
  const exponent = Math.log10(value);
  return Math.abs(exponent - Math.round(exponent)) < 1e-9 ? `1e${Math.round(exponent)}` : "";
}

// A vertical line with its name where the sides part first.
function marked(plot, { at, text }) {
  const { ctx, bbox } = plot;
  const x = plot.valToPos(at, "x", true);
  const scale = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = ink("red");
  ctx.lineWidth = 1.5 * scale;
  ctx.setLineDash([4 * scale, 3 * scale]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  const width = Math.min(ctx.measureText(text).width, bbox.width);
  const from = Math.min(Math.max(x - width / 2, bbox.left), bbox.left + bbox.width - width);
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(text, from, bbox.top - 5 * scale, width);
  ctx.restore();
}

const depthCharts = [];
const DEPTHS = [
  { title: "forward", steps: ["forward", "bp_align", "train_align"], prefix: "activation/" },
  { title: "backward", steps: ["bp_align", "train_align"], prefix: "activation_grad/" },
];

function depthRows({ steps, prefix }) {
  for (const step of steps) {
    const found = rows.filter((row) => row.step === step && row.name.startsWith(prefix) && (row.meaning || row.red));
    if (found.length > 2) return found;
  }
  return [];
}

function firstDivergence(found) {
  const module = packed.first[found[0].step];
  let at = -1;
  if (module) {
    const own = new RegExp(`^activation(?:_grad)?/${module.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}[/#.]`);
    at = found.findIndex((row) => own.test(row.name) && row.red);
    if (at < 0) at = found.findIndex((row) => own.test(row.name));
    if (at >= 0) return { at, text: `first divergence: ${module}` };
  }
  at = found.findIndex((row) => row.red);
  return at < 0 ? undefined : { at, text: `first red: ${found[at].name.split("/")[1]}` };
}

function showDepth(mode) {
  const box = document.getElementById("depth-charts");
  for (const plot of depthCharts.splice(0)) {
    charts.delete(plot);
    plot.destroy();
  }
  box.replaceChildren();
  for (const depth of DEPTHS) {
    const found = depthRows(depth);
    if (!found.length) continue;
    document.getElementById("depth").hidden = false;
    const names = found.map((row) => row.name.slice(depth.prefix.length));
    const { series, range } = depthSeries(found, mode);
    const plot = chart(box, `${depth.title} pass, step ${found[0].step}`, found.map((_, i) => i), series, {
      along: "call", names, range, mark: firstDivergence(found),
      click: (at) => { location.hash = address(found[at]); },
    });
    depthCharts.push(plot);
  }
}

// The powers of ten around all that has a logarithm, with room for what has none.
function decadesOf(values) {
  const logarithms = values.filter((one) => one > 0 && Number.isFinite(one)).map(Math.log10);
  const least = logarithms.reduce((a, b) => Math.min(a, b), 0);
  const most = logarithms.reduce((a, b) => Math.max(a, b), least);
  return [10 ** (Math.floor(least) - 1), 10 ** (Math.ceil(most) + 0.3)];
}

function depthSeries(found, mode) {
  const unit = mode === "ratio" ? "× noise" : "error";
  const taken = packed.judgements.map((name) => {
    let last = 1;
    const errors = found.map((row) => (row[name] ? (mode === "ratio" ? row[name].ratio : row[name].error) : row.red ? Infinity : null));
    const limits = found.map((row) => {
      const one = row[name];
      if (!one) return null;
      if (mode !== "ratio") return one.limit;
      if (one.ratio > 0 && Number.isFinite(one.ratio)) last = (one.limit * one.ratio) / one.error;
      return last;
    });
    return { name, errors, limits };
  });
  const [least, most] = decadesOf(taken.flatMap((one) => [...one.errors, ...one.limits]));
  // Neither zero nor infinity has a logarithm: they lie on the edges.
  const clamp = (values) => values.map((one) => (one === null ? null : Number.isNaN(one) ? most : Math.min(Math.max(one, least), most)));
  const words = { meaning: "meaning (float64)", precision: "precision (working type)" };
  const series = taken.flatMap(({ name, errors, limits }) => {
    const limit = { label: `${name} limit`, values: clamp(limits), told: limits, ink: name, width: 1, dash: [5, 4], band: `${name}-band` };
    const error = { label: `${words[name]}, ${unit}`, values: clamp(errors), told: errors, ink: name, points: found.length < 80 };
    return mode === "ratio" && name !== "meaning" ? [error] : [limit, error];
  });
  return { series, range: [least, most] };
}

function showTraining() {
  const box = document.getElementById("training-charts");
  if (!box) return;
  for (const curve of packed.training) {
    chart(box, `${curve.name} by iteration`, curve.iteration, [
      { label: "reference", values: curve.reference, ink: "precision", width: 3 },
      { label: "port", values: curve.port, ink: "meaning", width: 1.6, dash: [7, 5] },
    ], { along: "iteration", linear: true });
    const errors = [curve.reference_error, curve.port_error, curve.twin_error ?? [], curve.limit, curve.twin_limit].flat();
    const [least, most] = decadesOf(errors);
    const clamp = (values) => values.map((one) => (one === null ? null : Math.max(one, least)));
    const flat = (limit) => curve.iteration.map(() => limit);
    const series = [
      ...(curve.limit ? [{ label: "rounding envelope", values: flat(curve.limit), ink: "precision", width: 1, dash: [5, 4], band: "precision-band" }] : []),
      ...(curve.twin_limit ? [{ label: "float64 envelope", values: flat(curve.twin_limit), ink: "meaning", width: 1, dash: [5, 4], band: "meaning-band" }] : []),
      { label: "reference", values: clamp(curve.reference_error), told: curve.reference_error, ink: "dim" },
      { label: "port", values: clamp(curve.port_error), told: curve.port_error, ink: "precision" },
      ...(curve.twin_error ? [{ label: "port in float64", values: clamp(curve.twin_error), told: curve.twin_error, ink: "meaning" }] : []),
    ];
    chart(box, `${curve.name}: distance from the reference's float64 run`, curve.iteration, series, { along: "iteration", range: [least, most] });
  }
}
