// What a value shows when it is clicked.
const dialog = at("value");
let shown = -1;

function section(title, ...inside) {
  return [make("h3", {}, title), ...inside];
}

function grid(heads, rows) {
  return make("div", { class: "scroll" }, make("table", {},
    make("tr", {}, ...heads.map((head, i) => make("th", { class: i ? "number" : null }, head))),
    ...rows.map(row => make("tr", {},
      ...row.map((cell, i) => make("td", { class: i ? "number" : null }, cell))))));
}

function facts(pairs) {
  return make("dl", {}, ...pairs.filter(([, said]) => said).flatMap(
    ([name, said]) => [make("dt", {}, name), make("dd", {}, said)]));
}

function metricsOf(value) {
  const both = [value.metrics, value.arriving];
  const row = (name, pick) => [name, ...both.map(each => each ? pick(each) : "-")];
  return grid(["", "introduced", "inherited"], [
    row("largest difference", m => number(m.max_abs)),
    row("mean difference", m => number(m.mean_abs)),
    row("mean square", m => number(m.mean_square)),
    row("largest magnitude expected", m => number(m.largest)),
    row("NaN: expected, found", m => m.nan.join(", ")),
    row("infinite: expected, found", m => m.infinite.join(", ")),
    row("disagree", m => number(m.disagree)),
  ]);
}

function histogram(details) {
  const { edges, counts } = details, most = Math.log1p(Math.max(...counts));
  const bars = counts.map((count, i) => {
    const height = most ? 100 * Math.log1p(count) / most : 0;
    return make("rect", { x: i + 0.05, width: 0.9, y: 100 - height, height },
      make("title", {}, `${count} from ${number(edges[i])} to ${number(edges[i + 1])}`));
  });
  return section("Histogram of the differences",
    make("svg", { class: "draw", viewBox: `0 0 ${counts.length} 100`, role: "img",
      preserveAspectRatio: "none", "aria-label": `${counts.reduce((a, b) => a + b, 0)} elements `
        + `between ${number(edges[0])} and ${number(edges.at(-1))}` }, ...bars),
    make("div", { class: "ends" }, make("span", {}, number(edges[0])),
      make("span", {}, "what is, less what should be; heights on a log scale"),
      make("span", {}, number(edges.at(-1)))));
}

function heat(rows) {
  const cells = rows.flat().map(size), finite = cells.filter(Number.isFinite);
  const top = Math.max(0, ...finite), width = rows[0].length;
  const marks = rows.flatMap((row, y) => row.flatMap((cell, x) => {
    const large = size(cell), square = make("rect", { x, y, width: 1, height: 1,
      "fill-opacity": Number.isFinite(large) ? (top ? large / top : 0).toFixed(3) : 1 });
    return Number.isFinite(large) ? [square] :
      [square, make("text", { x: x + 0.5, y: y + 0.8 }, "✕")];
  }));
  return section("Where the differences are",
    make("svg", { class: "heat", viewBox: `0 0 ${width} ${rows.length}`, role: "img",
      "aria-label": `Largest difference of each cell over the last two axes, up to ${number(top)}`,
      style: `aspect-ratio: ${width} / ${rows.length}; max-height: 420px` }, ...marks),
    make("div", { class: "ends heated" }, make("span", {}, "blank: 0"),
      make("span", {}, "last two axes; the largest of each cell"),
      make("span", {}, "full: " + number(top))));
}

function detailed(details) {
  const worst = details.worst.map(each => [`[${each.index.join(", ")}]`, number(each.expected),
    number(each.actual), typeof each.expected === "number" && typeof each.actual === "number" ?
      number(each.actual - each.expected) : "-"]);
  return [
    ...section("More numbers", facts([
      ["largest relative difference", number(details.max_relative)],
      ["cosine", String(details.cosine)],
      ["signal to noise", number(details.sqnr) + " dB"],
      ["units in the last place", details.ulp_max === null ? "" :
        `${number(details.ulp_max)} at most, ${number(details.ulp_median)} the median`],
    ])),
    ...(details.counts.length ? histogram(details) : []),
    ...(details.heat.length ? heat(details.heat) : []),
    ...(worst.length ? section("Worst elements",
      grid(["index", "expected", "found", "difference"], worst)) : []),
  ];
}

function open(i) {
  const value = values[i], details = read("details-" + i);
  shown = i;
  at("facts").replaceChildren(
    make("h2", { id: "value-name" }, sign(value.level), " ", value.name),
    make("p", { class: "quiet" }, `${data.signs[value.level].means}: introduced `
      + `${apart(value.metrics)}, inherited ${apart(value.arriving)}, limit ${number(value.limit)}`
      + (value.share ? ` (${times(value.share)})` : "")),
    facts([
      ["difference", value.difference],
      ["note", value.note],
      ["node", value.node && `${value.node} (${value.op_type})`],
      ["nodes of the region", value.nodes.join(", ")],
      ["module", value.module.join(", ")],
      ["compared with", value.partner],
      ["source", value.source],
      ["shape, type", `[${value.shape.join(", ")}] ${value.dtype}`],
      ["limit by", value.limit_by],
      ["fault", value.kind === "nodes" ? "" : value.kind],
    ]),
    ...section("Metrics", metricsOf(value)),
    ...(details ? detailed(details) : [make("p", { class: "quiet" },
      "Histogram, heat map and worst elements are there of values above their limits, and of all "
      + "with compare(..., details=True).")]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  keep("#v" + i);
}

// The address names the value that is open; where a page has none, as in a notebook, it stays.
function keep(hash) {
  try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { }
}

dialog.addEventListener("close", () => keep(""));
dialog.addEventListener("click", event => {
  if (event.target === dialog) dialog.close();
  const step = event.target.dataset.step;
  if (step === undefined) return;
  event.preventDefault();
  const place = order.indexOf(shown) + Number(step);
  if (order[place] !== undefined) open(order[place]);
});
document.addEventListener("click", event => {
  const name = event.target.closest("[data-value]");
  if (name) open(Number(name.dataset.value));
});
