// The chart: points at the value nearest to the pointer, or by the arrow keys, and opens it.
const plot = document.querySelector("#depth .plot");
let pointed = -1;

function point(i) {
  pointed = Math.max(0, Math.min(data.drawn - 1, i));
  const value = values[pointed], x = (pointed + 0.5) / data.drawn * 1000;
  plot.querySelector(".cursor").setAttribute("d", `M${x} 0V100`);
  const said = `${pointed + 1}. ${value.name} (${value.op_type}): introduced `
    + `${apart(value.metrics)}, inherited ${apart(value.arriving)}, limit ${number(value.limit)}`;
  at("reading").textContent = `${data.signs[value.level].sign} ${said}`;
  plot.setAttribute("aria-valuenow", pointed + 1);
  plot.setAttribute("aria-valuetext", `${said}, ${data.signs[value.level].means}`);
}

if (plot) {
  for (const [name, value] of Object.entries({ tabindex: 0, role: "slider",
    "aria-label": "Value along the depth; Enter opens it", "aria-valuemin": 1,
    "aria-valuemax": data.drawn, "aria-valuenow": 1 })) plot.setAttribute(name, value);
  const under = event => {
    const box = plot.getBoundingClientRect();
    return Math.floor((event.clientX - box.left) / box.width * data.drawn);
  };
  plot.addEventListener("pointermove", event => point(under(event)));
  plot.addEventListener("click", event => { point(under(event)); open(pointed); });
  plot.addEventListener("keydown", event => {
    const far = Math.max(2, Math.round(data.drawn / 20));
    const to = { ArrowLeft: pointed - 1, ArrowRight: pointed + 1, PageUp: pointed + far,
      PageDown: pointed - far, Home: 0, End: data.drawn - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); point(to); }
    if (event.key === "Enter" && pointed >= 0) open(pointed);
  });
  at("reading").textContent = "Point at the chart, or move along it with the arrow keys; click or "
    + "Enter opens a value.";
}
const named = location.hash.match(/^#v(\d+)$/);
if (named && values[named[1]]) open(Number(named[1]));
