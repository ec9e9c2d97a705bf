// Tables sort by the column whose heading is clicked; a second click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const value = (row) => row.cells[column].dataset.value;
      const isNumeric = rows.every((row) => value(row) !== "" && !isNaN(value(row)));
      // The interesting end first: largest numbers, first letters.
      const before = heading.getAttribute("aria-sort");
      const first = isNumeric ? "descending" : "ascending";
      const second = isNumeric ? "ascending" : "descending";
      const order = before === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) =>
        sign * (isNumeric ? value(a) - value(b) : value(a).localeCompare(value(b))));
      table.tBodies[0].append(...rows);
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
    });
  });
}

// Videos of successes, of failures, or both.
for (const choice of document.querySelectorAll("input[name=shown]")) {
  choice.addEventListener("change", () => { document.body.dataset.shown = choice.value; });
}

for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "copied";
  });
}
