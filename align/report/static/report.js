// What happens when the page is opened, and when it is used.

function readHash() {
  const [kind, ...rest] = location.hash.slice(1).split("=");
  let text = "";
  try {
    text = decodeURIComponent(rest.join("="));
  } catch {
    return; // a broken address is none of ours
  }
  if (kind === "row") {
    const row = rows.find((one) => `${one.step}/${one.name}` === text);
    if (row) table.open(row.index);
  } else if (kind === "step" || kind === "module") {
    table.opened = -1;
    if (kind === "step") table.clear(text);
    else table.clear("", text);
    document.getElementById("rows").scrollIntoView();
  } else if (kind) document.getElementById(kind)?.scrollIntoView();
}

function forgetHash() {
  history.replaceState(null, "", location.pathname + location.search);
}

function onKey(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (table.opened >= 0) {
      table.close();
      forgetHash();
    }
  } else if (typing || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    document.getElementById("search").focus();
  } else if (event.key === "j" || event.key === "k") {
    table.select(table.selected + (event.key === "j" ? 1 : -1));
  } else if (event.key === "Enter" && table.selected >= 0 && !event.target.closest("a, button, summary")) {
    location.hash = address(table.view[table.selected]);
  }
}

function listenToTable() {
  const columns = document.getElementById("columns");
  for (const column of COLUMNS) {
    const head = element("th", "", { "data-key": column.key, scope: "col", class: NUMERIC.has(column.key) ? "n" : "" });
    const button = element("button", column.title, { type: "button" });
    button.addEventListener("click", () => {
      table.reversed = table.sort === column.key && !table.reversed;
      table.sort = column.key;
      table.apply();
    });
    head.append(button);
    columns.append(head);
  }
  for (const [id, key] of [["step", "step"], ["verdict", "verdict"]]) {
    for (const name of new Set(rows.map((row) => row[key]))) document.getElementById(id).append(element("option", name, { value: name }));
    document.getElementById(id).addEventListener("change", () => table.apply());
  }
  let waiting = 0;
  document.getElementById("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => table.apply(), 120);
  });
  document.getElementById("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    document.getElementById("search").blur();
    if (table.view.length) table.select(0);
  });
  document.getElementById("module").addEventListener("click", () => table.clear(document.getElementById("step").value));
  for (const [id, by] of [["previous", -1], ["next", 1]]) {
    document.getElementById(id).addEventListener("click", () => {
      table.page += by;
      table.selected = -1;
      table.show();
      document.getElementById("rows").scrollIntoView();
    });
  }
  document.getElementById("body").addEventListener("click", (event) => {
    const line = event.target.closest("tr.row");
    if (!line || event.target.closest("a")) return;
    const row = rows[Number(line.dataset.index)];
    if (table.opened === row.index) {
      table.close();
      forgetHash();
    } else location.hash = address(row);
  });
}

function listenToTheme() {
  const root = document.documentElement;
  const remembered = () => {
    try {
      return localStorage.getItem("align-theme");
    } catch {
      return null; // storage may be forbidden to files
    }
  };
  const set = (theme) => {
    root.dataset.theme = theme;
    for (const plot of charts) plot.redraw(false);
  };
  if (remembered()) root.dataset.theme = remembered();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    set(dark ? "light" : "dark");
    try {
      localStorage.setItem("align-theme", root.dataset.theme);
    } catch {
      // then it holds for this visit
    }
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => charts.forEach((plot) => plot.redraw(false)));
  }
}

function hideEmptyLinks() {
  for (const link of document.querySelectorAll("[data-section]")) link.hidden = document.getElementById(link.dataset.section).hidden;
}

listenToTheme();
showTree(); // tells each row its module
listenToTable();
table.apply();
addEventListener("hashchange", readHash);
addEventListener("keydown", onKey);
// Charts come after the first paint.
requestAnimationFrame(() =>
  setTimeout(() => {
    showDepth("absolute");
    showTraining();
    showPictures();
    hideEmptyLinks();
    readHash();
    document.documentElement.dataset.ready = "yes";
  }),
);
for (const button of document.querySelectorAll("#depth-mode button")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("#depth-mode button")) other.setAttribute("aria-pressed", String(other === button));
    showDepth(button.dataset.mode);
  });
}
