// The data, and how numbers and elements are made of it.
const read = name => {
  const found = document.getElementById(name);
  return found && JSON.parse(found.textContent);
};
const data = read("data"), values = data.values;
const at = id => document.getElementById(id);

// JSON has no infinity; Python's names of what is not finite come as text.
const size = x => x === null ? -1 : x === "inf" ? Infinity : x === "-inf" ? -Infinity :
  x === "nan" ? NaN : x;

function number(x) {
  if (x === null || x === undefined) return "-";
  if (typeof x !== "number") return String(x);
  const large = Math.abs(x);
  if (x === 0 || Number.isInteger(x) && large < 1e6) return String(x);
  if (large >= 1e6 || large < 1e-4) return x.toExponential(2);
  return String(Number(x.toPrecision(3)));
}

function apart(metrics) {
  if (!metrics) return "-";
  const said = metrics.mismatch ? [metrics.mismatch] : [];
  if (metrics.disagree)
    said.push(metrics.disagree + (metrics.nan.concat(metrics.infinite).some(Boolean) ?
      " NaN or inf" : " differ"));
  if (!said.length) said.push(number(metrics.max_abs));
  return said.join(", ");
}

// How large a difference is; infinite where an element or the shape disagrees.
const weight = metrics => !metrics ? -1 :
  metrics.disagree || metrics.mismatch ? Infinity : size(metrics.max_abs);

// Every text is set as text, never as HTML.
function make(tag, given, ...inside) {
  const space = ["svg", "rect", "path", "text"].includes(tag) ?
    "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const made = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(given || {}))
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...inside.filter(each => each !== null && each !== undefined && each !== ""));
  return made;
}

const sign = level => make("span", { class: "sign " + level, role: "img",
  "aria-label": data.signs[level].means, title: data.signs[level].means },
  data.signs[level].sign);
const times = share => share === null ? "-" :
  size(share) < 1 ? `${number(share)} of the limit` : `${number(share)} times the limit`;
