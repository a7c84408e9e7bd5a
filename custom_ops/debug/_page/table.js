// The table of values: searched, sorted, and drawn only where it is seen.
const HEIGHT = 31, SPARE = 12;
const columns = [
  ["order", "#", (v, i) => i, (v, i) => String(i + 1)],
  ["sign", "", v => size(v.share), v => sign(v.level)],
  ["name", "value", v => v.name, (v, i) => make("button", { "data-value": i }, v.name)],
  ["op", "op", v => v.op_type, v => v.op_type],
  ["module", "module", v => v.module.join(), v => v.module.join(", ")],
  ["introduced", "introduced", v => weight(v.metrics), v => apart(v.metrics)],
  ["inherited", "inherited", v => weight(v.arriving), v => apart(v.arriving)],
  ["limit", "limit", v => size(v.limit), v => number(v.limit)],
  ["share", "of limit", v => size(v.share), v => number(v.share)],
];
const numeric = new Set(["order", "introduced", "inherited", "limit", "share"]);
const rows = at("rows"), body = rows.querySelector("tbody");
const words = values.map(v => [v.name, v.node, v.op_type, ...v.module, ...v.nodes, v.partner,
  v.source, v.dtype].join(" ").toLowerCase());
let order = values.map((_, i) => i), sorted = "order", down = false, inModule = null;

const classOf = name => `c-${name}` +
  (numeric.has(name) && name !== "order" ? " number" : "");
const within = (path, whole) => whole === "" || path === whole || path.startsWith(whole + ".");

function draw() {
  const from = Math.max(0, Math.floor(rows.scrollTop / HEIGHT) - SPARE);
  const to = Math.min(order.length, from + Math.ceil(rows.clientHeight / HEIGHT) + 2 * SPARE);
  const gap = count => make("tr", { "aria-hidden": "true" },
    make("td", { class: "gap", colspan: columns.length, style: `height: ${count * HEIGHT}px` }));
  const drawn = order.slice(from, to).map((i, place) => make("tr",
    { "aria-rowindex": from + place + 2 },
    ...columns.map(([name, , , show]) => {
      const cell = make("td", { class: classOf(name) }, show(values[i], i));
      if (cell.textContent.length > 14) cell.title = cell.textContent;
      return cell;
    })));
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.value : null;
  body.replaceChildren(gap(from), ...drawn, gap(order.length - to));
  if (focused) body.querySelector(`[data-value="${focused}"]`)?.focus({ preventScroll: true });
}

function select() {
  const wanted = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const level = at("levels").value, [, , key] = columns.find(([name]) => name === sorted);
  order = values.map((_, i) => i).filter(i => wanted.every(word => words[i].includes(word))
    && (!level || values[i].level === level)
    && (inModule === null || values[i].module.some(path => within(path, inModule))));
  const keys = new Map(order.map(i => [i, key(values[i], i)])), sense = down ? -1 : 1;
  order.sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    return one < other ? -sense : one > other ? sense : a - b;
  });
  for (const head of rows.querySelectorAll("th"))
    head.setAttribute("aria-sort", head.dataset.column !== sorted ? "none" :
      down ? "descending" : "ascending");
  for (const mark of rows.querySelectorAll("th i"))
    mark.textContent = mark.dataset.column === sorted ? (down ? " ▾" : " ▴") : "";
  at("count").textContent = `${order.length} of ${values.length}`;
  at("module").hidden = inModule === null;
  at("module").textContent = `module ${inModule || "(whole model)"} ✕`;
  rows.querySelector("table").setAttribute("aria-rowcount", order.length + 1);
  rows.scrollTop = 0;
  draw();
}

rows.querySelector("thead tr").append(...columns.map(([name, title]) => {
  const button = make("button", { "aria-label": title || "sign, by the share of the limit" },
    title, make("i", { "data-column": name }));
  button.onclick = () => {
    down = sorted === name ? !down : numeric.has(name) && name !== "order" || name === "sign";
    sorted = name;
    select();
  };
  return make("th", { class: classOf(name), "data-column": name, scope: "col" }, button);
}));
for (const [level, { sign: mark, means }] of Object.entries(data.signs)) {
  const count = values.filter(v => v.level === level).length;
  if (count) at("levels").append(make("option", { value: level }, `${mark} ${means} (${count})`));
}
// The arrows go from row to row; those not drawn yet too.
rows.addEventListener("keydown", event => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const now = event.target.dataset?.value;
  if (!step || now === undefined) return;
  event.preventDefault();
  const place = order.indexOf(Number(now)) + step, next = order[place];
  if (next === undefined) return;
  const top = place * HEIGHT, seen = rows.clientHeight - 2 * HEIGHT;
  if (top < rows.scrollTop) rows.scrollTop = top;
  else if (top > rows.scrollTop + seen) rows.scrollTop = top - seen;
  draw();
  body.querySelector(`[data-value="${next}"]`)?.focus({ preventScroll: true });
});
at("search").oninput = at("levels").onchange = select;
at("module").onclick = () => { inModule = null; select(); };
rows.addEventListener("scroll", draw, { passive: true });
addEventListener("resize", draw);
select();
