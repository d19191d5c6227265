// The table of cells on the page: one window of rows stands in it, names go in as text alone.
(() => {
  const PAGE = 100, PRINTED = 1000;
  const NOT_OK = "not ok";
  const find = id => document.getElementById(id);
  const make = (tag, text, facts) => Object.assign(document.createElement(tag), { textContent: text }, facts);
  const cells = new Cells(JSON.parse(find("table").textContent));
  const total = cells.order.length;
  const same = cells.columns.filter(c => c.context && c.texts.length === 1);
  const columns = cells.columns.filter(c => c.name && !same.includes(c));
  const body = find("every").tBodies[0];
  const inputs = []; // functions that return a test, or null where nothing is chosen
  let first = 0;

  function line(row) {
    const tr = document.createElement("tr");
    for (const { at, texts, values, name } of columns) {
      const text = texts[at[row]];
      const td = make("td", text || "—");
      if (values) td.className = "number";
      if (name === "status" && text !== "ok") tr.className = "failed";
      tr.append(td);
    }
    return tr;
  }

  function show(start, size = PAGE) {
    const count = cells.shown.length;
    const last = Math.max(0, Math.floor((count - 1) / PAGE) * PAGE);
    first = Math.min(Math.max(0, start), last);
    const rows = cells.shown.slice(first, first + size);
    body.replaceChildren(...rows.map(line));
    find("shown").textContent = `${count.toLocaleString("en")} of ${total.toLocaleString("en")} cells`;
    find("window").textContent = count
      ? `rows ${(first + 1).toLocaleString("en")} to ${(first + rows.length).toLocaleString("en")}`
      : "no cell fits";
    find("pages").hidden = count <= PAGE;
    const targets = { first: 0, previous: first - PAGE, next: first + PAGE, last };
    for (const button of find("pages").querySelectorAll("button")) {
      const to = targets[button.dataset.to];
      // not "disabled", which would throw the keyboard's focus away
      button.setAttribute("aria-disabled", String(to < 0 || to > last || to === first));
      button.onclick = () => {
        if (button.getAttribute("aria-disabled") === "true") return;
        show(to);
        body.closest(".scroll").scrollTop = 0;
      };
    }
  }

  function filter() {
    const words = find("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    cells.filter(inputs.map(test => test()).filter(Boolean), words);
    show(0);
  }

  // A name to choose among those that occur; rows of other names go.
  function choice(column) {
    const select = document.createElement("select");
    select.dataset.column = column.csv;
    select.append(make("option", "all", { value: "" }));
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const places = [...column.texts.keys()].sort((a, b) => compare(column.texts[a], column.texts[b]));
    for (const place of places) {
      const text = column.long?.[place] ?? column.texts[place];
      select.append(make("option", text || "—", { value: String(place) }));
    }
    if (column.csv === "status") select.append(make("option", "all but ok", { value: NOT_OK }));
    const label = make("label", `${column.name} `);
    label.append(select);
    inputs.push(() => select.value && [column, column.texts.map((text, place) =>
      (select.value === NOT_OK ? text !== "ok" : String(place) === select.value))]);
    return label;
  }

  // Ends are held against what is shown, two decimals; a row without a value fits no range.
  function range(column) {
    const [scale, unit] = column.range;
    const field = end => make("input", "", { type: "number", step: "any", ariaLabel: `${column.name}, ${end} (${unit})` });
    const from = field("least"), to = field("most");
    const group = make("span", `${column.name} `, { className: "range" });
    group.append(from, " to ", to, ` ${unit}`);
    inputs.push(() => {
      if (from.value === "" && to.value === "") return null;
      const low = from.value === "" ? -Infinity : Number(from.value);
      const high = to.value === "" ? Infinity : Number(to.value);
      return [column, column.values.map(value => {
        const seen = Math.round(value * scale * 100) / 100;
        return value !== null && low <= seen && seen <= high;
      })];
    });
    return group;
  }

  function heading(column) {
    const th = make("th", "", { scope: "col" });
    const button = make("button", column.name, { type: "button" });
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      cells.sort(column, down);
      show(0);
    });
    th.append(button);
    return th;
  }

  function save() {
    const address = URL.createObjectURL(new Blob([cells.csv()], { type: "text/csv" }));
    make("a", "", { href: address, download: "cells-shown.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  }

  const form = find("choose");
  const choices = columns.filter(c => c.choose && c.texts.length > 1).map(choice);
  const ranges = columns.filter(c => c.range && c.values.length > 1).map(range);
  find("chosen").append(...choices, ...ranges);
  find("every").tHead.rows[0].append(...columns.map(heading));
  if (same.length) {
    const told = same.map(c => `${c.name} ${c.long?.[0] ?? c.texts[0]}`).join("; ");
    find("same").textContent = `The same in every cell: ${told}.`;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter)); // the fields are empty only after it
  find("save").addEventListener("click", save);
  let before = 0;
  addEventListener("beforeprint", () => { before = first; show(0, PRINTED); });
  addEventListener("afterprint", () => show(before));
  find("tool").hidden = false;
  find("still").remove();
  filter();
})();
