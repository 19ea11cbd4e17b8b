// Which module a row belongs to, and the tree of modules coloured by the worst of their rows.

const ROOT = "(model)";
const BOUNDARY = /^(?:activation|activation_grad|probe|probe_grad)\/([^/]+)\//;

function within(module, parent) {
  return module !== null && (parent === ROOT || module === parent || module.startsWith(`${parent}.`));
}

// Modules are named by what they hand on, and by the parameters that they own.
function moduleNames() {
  const names = new Set();
  const add = (name) => {
    for (let own = name; own; own = own.slice(0, Math.max(0, own.lastIndexOf(".")))) names.add(own);
  };
  for (const row of rows) {
    const found = BOUNDARY.exec(row.name);
    if (found && found[1] !== ROOT) add(found[1].replace(/#\d+$/, ""));
    else if (row.kind === "parameter" && !row.name.includes("/")) add(row.name.slice(0, Math.max(0, row.name.lastIndexOf("."))));
  }
  return names;
}

// The longest known module that a part of the row's name begins with; null where a row belongs to none.
function moduleOf(row, names) {
  for (const part of row.name.split("/")) {
    if (part === ROOT) return ROOT;
    for (let own = part.replace(/#\d+$/, ""); own; own = own.slice(0, Math.max(0, own.lastIndexOf(".")))) {
      if (names.has(own)) return own;
    }
  }
  return null;
}

// Tells each row its module; whether there are any.
function findModules() {
  const names = moduleNames();
  for (const row of rows) row.module = moduleOf(row, names);
  return names.size > 0;
}

function buildTree(step) {
  const root = { name: ROOT, children: new Map(), worst: 0, red: 0, count: 0 };
  const node = (name) => {
    let at = root;
    let path = "";
    if (name === ROOT) return [root];
    const through = [root];
    for (const part of name.split(".")) {
      path = path ? `${path}.${part}` : part;
      if (!at.children.has(part)) at.children.set(part, { name: path, children: new Map(), worst: 0, red: 0, count: 0 });
      at = at.children.get(part);
      through.push(at);
    }
    return through;
  };
  for (const row of rows) {
    if (row.module === null || (step && row.step !== step)) continue;
    for (const at of node(row.module)) {
      at.count += 1;
      at.red += row.red;
      at.worst = Math.max(at.worst, row.excess);
    }
  }
  return root;
}

// 0 to 1 while a module keeps its limits, on to 2 at a million times as much.
function heat(worst) {
  if (worst <= 0) return 0;
  if (worst <= 1) return Math.max(0, 1 + Math.log10(worst) / 4);
  return Math.min(2, 1 + Math.log10(worst) / 6);
}

function paint(worst) {
  const at = heat(worst);
  const hue = at <= 1 ? 150 - 70 * at : 40 - 40 * (at - 1);
  return `hsl(${hue} ${worst > 1 ? 85 : 45}% 50%)`;
}

// Opened as far as the modules that are wrong themselves.
function leadsToOwn(node) {
  return packed.divergent.some((name) => within(name, node.name) && name !== node.name);
}

function branch(node, depth) {
  const folded = element(node.children.size ? "details" : "div", "", { class: "branch" });
  const line = element(node.children.size ? "summary" : "p");
  const mark = element("span", "", { class: "heat" });
  mark.style.background = paint(node.worst);
  const label = node.name === ROOT ? ROOT : node.name.slice(node.name.lastIndexOf(".") + 1);
  const link = element("a", label, { href: `#module=${encodeURIComponent(node.name)}`, title: node.name });
  const told = node.red ? `${node.red} red of ${node.count}, worst ${digits(node.worst)} of its limit` : `${node.count} row${node.count === 1 ? "" : "s"}, worst ${digits(node.worst)}`;
  line.append(mark, link);
  if (packed.divergent.includes(node.name)) line.append(element("span", "differs itself", { class: "own" }));
  line.append(element("small", told, { class: node.red ? "red" : "" }));
  folded.append(line);
  if (!node.children.size) return folded;
  // Made when it is unfolded first: a large model has thousands.
  const unfold = () => {
    if (folded.dataset.made) return;
    folded.dataset.made = "yes";
    for (const child of node.children.values()) folded.append(branch(child, depth + 1));
  };
  folded.addEventListener("toggle", unfold);
  if (depth < 2 || leadsToOwn(node)) {
    unfold();
    folded.open = true;
  }
  return folded;
}

function showTree() {
  if (!findModules()) return;
  document.getElementById("modules").hidden = false;
  const choice = document.getElementById("tree-step");
  const steps = new Set(rows.filter((row) => row.module !== null).map((row) => row.step));
  for (const step of steps) choice.append(element("option", step, { value: step }));
  const red = rows.find((row) => row.red && row.module !== null);
  choice.value = steps.has(packed.blamed) ? packed.blamed : (red?.step ?? "");
  const show = () => document.getElementById("tree").replaceChildren(branch(buildTree(choice.value), 0));
  choice.addEventListener("change", show);
  show();
}
