"use strict";
(() => {
  const body = document.querySelector("#every tbody");
  const heads = [...document.querySelectorAll("#every th")];
  const form = document.getElementById("choose");
  const words = document.getElementById("words");
  const rows = [...body.rows];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...form.querySelectorAll("select")].filter(s => s.value);
    let shown = 0;
    rows.forEach((row, i) => {
      const keep = wanted.every(w => texts[i].includes(w)) &&
        chosen.every(s => row.dataset[s.name] === s.value);
      row.hidden = !keep;
      shown += keep;
    });
    document.getElementById("shown").textContent = `${shown} of ${rows.length} cells`;
  }

  function compare(a, b) {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  }

  function sort(column) {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const empty = k => k === "" || k === "—";
    const order = rows.map(row => [key(row, column), row]);
    order.sort(([a], [b]) => empty(a) || empty(b) ? empty(a) - empty(b) : compare(a, b) * (down ? -1 : 1));
    body.append(...order.map(([, row]) => row));
  }

  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  filter();
})();
