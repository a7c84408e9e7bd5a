// The modules, each with the sign of the worst value in it; drawn when they are opened.
function grow() {
  const root = { path: "", name: "the whole model", parts: new Map(), values: new Set() };
  values.forEach((value, i) => {
    for (const path of value.module.length ? value.module : [""]) {
      let node = root;
      node.values.add(i);
      let whole = "";
      for (const name of path === "" ? [] : path.split(".")) {
        whole = whole ? `${whole}.${name}` : name;
        if (!node.parts.has(name))
          node.parts.set(name, { path: whole, name, parts: new Map(), values: new Set() });
        node = node.parts.get(name);
        node.values.add(i);
      }
    }
  });
  return root;
}

const severity = Object.keys(data.signs);

function row(node) {
  const all = [...node.values].map(i => values[i]);
  const level = severity.find(each => all.some(value => value.level === each)) || "none";
  const wrong = all.filter(value => value.level === "fault").length;
  const most = all.reduce((a, b) => size(b.share) > size(a) ? b.share : a, null);
  const button = make("button", { "aria-label": `values of ${node.path || node.name}` }, "values");
  button.onclick = event => {
    event.preventDefault();
    inModule = node.path;
    select();
    rows.scrollIntoView({ block: "center" });
  };
  const said = `${all.length} value${all.length === 1 ? "" : "s"}` +
    (wrong ? `, ${wrong} above the limit` : "") +
    (most !== null && most !== 0 ? `, at most ${times(most)}` : "");
  return [make("span", { class: level }, sign(level), make("b", {}, node.name)),
    make("span", { class: "of" }, said),
    button];
}

function branch(node, isOpen) {
  if (!node.parts.size) return make("div", { class: "leaf" }, ...row(node));
  const made = make("details", {}, make("summary", {}, ...row(node)));
  const fill = () => {
    if (made.childElementCount > 1) return;
    made.append(...[...node.parts.values()].map(
      each => branch(each, [...each.values].some(i => values[i].level === "fault"))));
  };
  made.addEventListener("toggle", fill);
  if (isOpen) {
    made.open = true;
    fill();
  }
  return made;
}

if (values.length) at("tree").append(branch(grow(), true));
