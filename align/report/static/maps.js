// Where in a tensor the error sits, how it is distributed, and images that differ.

const NOT_FINITE = 255;
const DECADES = 4; // from the least to the greatest colour, as in align.report.details
// Viridis at five places (Nathaniel Smith and Stefan van der Walt, CC0).
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function colour(byte) {
  if (byte === 0) return [0, 0, 0, 0];
  if (byte === NOT_FINITE) return [255, 0, 200, 255];
  const at = ((byte - 1) / 253) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return [...VIRIDIS[low].map((from, i) => Math.round(from + (VIRIDIS[low + 1][i] - from) * (at - low))), 255];
}

function errorMap(map) {
  const box = element("div", "", { class: "maps" });
  if (map.grid) box.append(heatMap(map.grid, map.greatest));
  for (const strip of map.strips) box.append(heatMap(strip, map.greatest));
  box.append(histogram(map));
  const told = `Yellow is an error of ${digits(map.greatest)}, dark violet a ten-thousandth of it or less; no colour: equal; magenta: not finite.`;
  box.append(element("p", told, { class: "note" }));
  return box;
}

// One cell is the greatest error in its block, over all other axes.
function heatMap(grid, greatest) {
  const bytes = Uint8Array.from(atob(grid.bytes), (letter) => letter.charCodeAt(0));
  const [high, wide] = grid.cells.length === 2 ? grid.cells : [1, grid.cells[0]];
  const canvas = element("canvas", "", { width: wide, height: high, class: "heatmap", role: "img" });
  const size = Math.max(6, Math.min(16, Math.floor(256 / Math.max(wide, high))));
  canvas.style.width = `${wide * size}px`;
  canvas.style.height = `${high * size}px`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(wide, high);
  bytes.forEach((byte, i) => image.data.set(colour(byte), i * 4));
  context.putImageData(image, 0, 0);
  const axes = grid.axes.map((axis, i) => `axis ${axis} (${grid.lengths[i]})${grid.axes.length === 2 ? [" ↓", " →"][i] : " →"}`);
  canvas.setAttribute("aria-label", `greatest error by place: ${axes.join(", ")}`);
  const figure = element("figure");
  const told = element("figcaption", axes.join(", "));
  canvas.addEventListener("mousemove", (event) => {
    const place = canvas.getBoundingClientRect();
    const column = Math.min(wide - 1, Math.floor(((event.clientX - place.left) / place.width) * wide));
    const line = Math.min(high - 1, Math.floor(((event.clientY - place.top) / place.height) * high));
    const cell = grid.axes.length === 2 ? [line, column] : [column];
    const range = cell.map((at, i) => span(at, grid.cells[i], grid.lengths[i]));
    told.textContent = `[${range.join(", ")}] ${amount(bytes[line * wide + column], greatest)}`;
  });
  canvas.addEventListener("mouseleave", () => { told.textContent = axes.join(", "); });
  figure.append(canvas, told);
  return figure;
}

function span(at, cells, length) {
  const from = Math.floor((at * length) / cells);
  const to = Math.floor(((at + 1) * length) / cells) - 1;
  return from === to ? `${from}` : `${from}…${to}`;
}

function amount(byte, greatest) {
  if (byte === 0) return "equal";
  if (byte === NOT_FINITE) return "not finite";
  return `${byte === 1 ? "at most " : "about "}${digits(greatest * 10 ** (DECADES * ((byte - 1) / 253 - 1)))}`;
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function histogram(map) {
  const { counts, from, to, zero, nonfinite } = map.histogram;
  const figure = element("figure");
  const [wide, high] = [280, 110];
  const most = Math.max(1, ...counts);
  if (counts.length) {
    const picture = drawn("svg", { viewBox: `0 0 ${wide} ${high + 16}`, class: "histogram", role: "img", "aria-label": "histogram of the error" });
    const width = wide / counts.length;
    counts.forEach((count, i) => {
      const tall = count ? Math.max(1, (count / most) * high) : 0;
      picture.append(drawn("rect", { x: i * width, y: high - tall, width: Math.max(0.5, width - 1), height: tall }));
    });
    const label = (x, text, anchor) => {
      const made = drawn("text", { x, y: high + 13, "text-anchor": anchor });
      made.textContent = text;
      picture.append(made);
    };
    label(0, digits(10 ** from), "start");
    label(wide, digits(10 ** to), "end");
    figure.append(picture);
  }
  const others = [zero && `${zero} equal`, nonfinite && `${nonfinite} not finite`].filter(Boolean).join(", ");
  figure.append(element("figcaption", `elements by |error|, ${map.dtype}${others ? `; ${others}` : ""}`));
  return figure;
}

function showPictures() {
  const list = document.getElementById("pictures-list");
  if (!list) return;
  for (const found of packed.pictures) {
    const row = rows[found.row];
    const box = element("article", "", { class: "card" });
    const title = element("h3");
    title.append(element("a", row.name, { href: address(row) }));
    const images = element("div", "", { class: "images" });
    for (const side of ["reference", "port", "difference"]) {
      if (!found[side]) continue;
      const figure = element("figure");
      const more = side === "difference" ? `, white is ${digits(found.greatest)}` : "";
      figure.append(element("img", "", { src: found[side], alt: `${side} of ${row.name}` }), element("figcaption", side + more));
      images.append(figure);
    }
    box.append(title, images);
    list.append(box);
  }
}
