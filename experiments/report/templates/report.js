"use strict";
// The edge explorer: one matrix on a canvas, one list, one chosen edge.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("matrix"), context = canvas.getContext("2d"), info = byId("edge");
  const picker = byId("cell"), filter = byId("filter"), clear = byId("clear");
  const body = byId("edges").tBodies[0];
  const shown = 200, left = 40, top = 50;  // room for the names of writers and readers
  let cell, edges, at, show = "difference", sort = "difference", downwards = true, chosen = null, size = 10;

  // An edge exists iff its writer comes before its reader; edges are stored row by row.
  const sees = (layers, reader) =>
    reader === 4 * layers ? 1 + 2 * layers : 2 * Math.floor(reader / 4) + (reader % 4 === 3 ? 2 : 1);
  const text = (value) => (value === 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1000
    ? value.toExponential(2) : value.toPrecision(3));
  const signed = (value) => (value > 0 ? "+" : "") + text(value);
  const isClear = (e) => !e.hidden && e.low !== null && (e.low > 0 || e.high < 0);
  const interval = (e) => (e.hidden ? "not measurable by EAP"
    : e.low === null ? "not measured" : `${signed(e.low)} to ${signed(e.high)}`);

  function open(index) {
    cell = data.cells[index];
    const names = data.names[cell.layers];
    const hidden = new Set(cell.not_measurable);
    edges = []; at = names.writers.map(() => []);
    for (let w = 0; w < names.writers.length; w++) {
      for (let r = 0; r < names.readers.length; r++) {
        if (w >= sees(cell.layers, r)) continue;
        const n = edges.length, scale = (list) => (list ? list[n] * cell.unit : null);
        edges.push({ w, r, writer: names.writers[w], reader: names.readers[r],
          base: scale(cell.base), rl: scale(cell.rl), difference: scale(cell.difference),
          low: scale(cell.low), high: scale(cell.high), hidden: hidden.has(n) });
        at[w][r] = edges[n];
      }
    }
    for (const key of ["base", "rl", "difference"]) {
      cell["max_" + key] = edges.reduce((most, e) => Math.max(most, Math.abs(e[key])), 0) || 1;
    }
    cell.max_base = cell.max_rl = Math.max(cell.max_base, cell.max_rl);
    clear.disabled = !cell.low;
    chosen = null; info.textContent = "No edge chosen.";
    draw(); list();
  }

  // Blue to white to red for scores, purple to white to orange for differences; safe for
  // colour-blind readers. Logarithmic from a thousandth of the largest value on.
  function colour(value) {
    const share = Math.log1p((1000 * Math.abs(value)) / cell["max_" + show]) / Math.log1p(1000);
    const ends = show === "difference" ? [[84, 39, 136], [179, 88, 6]] : [[0, 90, 160], [190, 50, 20]];
    const end = ends[value < 0 ? 0 : 1];
    return `rgb(${end.map((c) => Math.round(255 + (c - 255) * share)).join()})`;
  }

  function draw() {
    const rows = at.length, columns = 4 * cell.layers + 1, finger = matchMedia("(pointer: coarse)").matches;
    const room = Math.max(280, canvas.parentElement.clientWidth - 8) - left;
    size = Math.max(finger ? 12 : 6, Math.min(26, Math.floor(room / columns)));
    const ratio = window.devicePixelRatio || 1;
    const width = left + columns * size, height = top + rows * size;
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.width = width + "px"; canvas.style.height = height + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    names(rows, columns);
    context.translate(left, top);
    context.fillStyle = getComputedStyle(document.body).getPropertyValue("--none");
    context.fillRect(0, 0, columns * size, rows * size);
    const gap = size > 8 ? 1 : 0;
    for (const e of edges) {
      context.fillStyle = colour(e[show]);
      context.fillRect(e.r * size, e.w * size, size - gap, size - gap);
      if (e.hidden) {  // a cross: its score is 0 whatever cutting it does
        context.lineWidth = 1; context.strokeStyle = "#777"; context.beginPath();
        context.moveTo(e.r * size, e.w * size); context.lineTo((e.r + 1) * size - gap, (e.w + 1) * size - gap);
        context.moveTo((e.r + 1) * size - gap, e.w * size); context.lineTo(e.r * size, (e.w + 1) * size - gap);
        context.stroke();
      }
    }
    if (chosen) {
      for (const [grow, line] of [[2, "#fff"], [1, "#000"]]) {
        context.lineWidth = 2; context.strokeStyle = line;
        context.strokeRect(chosen.r * size - grow, chosen.w * size - grow, size + 2 * grow, size + 2 * grow);
      }
    }
    for (const button of document.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === show));
    }
    legend();
  }

  // Every name where there is room; else the attention of some layers, input and logits.
  function names(rows, columns) {
    const all = data.names[cell.layers], roomy = size >= 12;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = getComputedStyle(document.body).color;
    context.font = "11px system-ui, sans-serif"; context.textBaseline = "middle";
    const every = (block) => Math.ceil(12 / (block * size));
    context.textAlign = "right";
    for (let w = 0; w < rows; w++) {
      if (!roomy && w && !(w % 2 && ((w - 1) / 2) % every(2) === 0 && w > 1)) continue;
      context.fillText(all.writers[w], left - 4, top + (w + 0.5) * size);
    }
    context.textAlign = "left";
    for (let r = 0; r < columns; r++) {
      const last = r === columns - 1;
      if (!roomy && !last && (r % 4 || (r / 4) % every(4))) continue;
      context.save();
      context.translate(left + (r + 0.5) * size, top - 4); context.rotate(-Math.PI / 2);
      context.fillText(roomy || last ? all.readers[r] : all.readers[r].split("<")[0], 0, 0);
      context.restore();
    }
  }

  function legend() {
    const largest = cell["max_" + show], shares = [-1, -0.1, -0.01, 0, 0.01, 0.1, 1];
    byId("ramp").style.background = `linear-gradient(to right, ${shares.map((s) => colour(s * largest)).join()})`;
    byId("lowest").textContent = text(-largest);
    byId("highest").textContent = signed(largest);
  }

  function choose(e) {
    if (!e || e === chosen) return;
    chosen = e; draw();
    if (e.hidden) {
      info.textContent = `${e.writer} \u2192 ${e.reader}: not measurable by EAP. It is all that the reader ` +
        "reads, and a norm divides its size out, so its score is 0 whatever cutting it does.";
      return;
    }
    const verdict = e.low === null ? "" : isClear(e) ? ", excludes 0" : ", includes 0";
    info.textContent = `${e.writer} \u2192 ${e.reader}: base ${text(e.base)}, rl ${text(e.rl)}, ` +
      `difference ${signed(e.difference)} (95 % interval ${interval(e)}${verdict})`;
  }

  // A word is the beginning of a name or its <q>, <k>, <v>; a1 is not the beginning of a10.
  function isNamed(name, word) {
    const place = name.indexOf(word), next = name[place + word.length];
    return (place === 0 || (place > 0 && word[0] === "<")) && !(/\d$/.test(word) && /\d/.test(next || ""));
  }

  // Words anywhere, or what stands before an arrow for the writer and after it for the reader.
  function wanted() {
    const sides = filter.value.toLowerCase().split(/->|\u2192/).map((side) => side.split(/[\s,]+/).filter(Boolean));
    if (sides.length === 1) {
      return (e) => sides[0].every((word) => isNamed(e.writer, word) || isNamed(e.reader, word));
    }
    return (e) => sides[0].every((word) => isNamed(e.writer, word)) && sides[1].every((word) => isNamed(e.reader, word));
  }

  function list() {
    const asked = wanted();
    const found = edges.filter((e) => (!clear.checked || isClear(e)) && asked(e));
    const value = { writer: (e) => e.w, reader: (e) => e.r }[sort] || ((e) => Math.abs(e[sort]));
    found.sort((a, b) => (downwards ? value(b) - value(a) : value(a) - value(b)));
    byId("count").textContent = `${found.length} edge${found.length === 1 ? "" : "s"}` + (found.length > shown ? `, first ${shown} shown` : "");
    body.replaceChildren(...found.slice(0, shown).map((e, place) => {
      const row = document.createElement("tr");
      row.tabIndex = place ? -1 : 0;  // one stop of the tab key; arrow keys go on from there
      for (const part of [e.writer, e.reader, text(e.base), text(e.rl), signed(e.difference), interval(e)]) {
        row.appendChild(document.createElement("td")).textContent = part;
      }
      row.addEventListener("focus", () => {
        for (const other of body.rows) { other.tabIndex = -1; other.removeAttribute("aria-selected"); }
        row.tabIndex = 0; row.setAttribute("aria-selected", "true");
        choose(e);
      });
      return row;
    }));
    for (const button of document.querySelectorAll("[data-sort]")) {
      const order = button.dataset.sort !== sort ? "none" : downwards ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", order);
    }
  }

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const row = at[Math.floor((event.clientY - box.top - top) / size)];
    return row && row[Math.floor((event.clientX - box.left - left) / size)];
  }

  // The next edge in a direction, past places where there is none.
  function beside(e, [down, right]) {
    for (let w = e.w + down, r = e.r + right; at[w] && r >= 0 && r <= 4 * cell.layers; w += down, r += right) {
      if (at[w][r]) return at[w][r];
    }
    return null;
  }

  function follow() {
    const box = canvas.parentElement, x = 4 + left + chosen.r * size;  // 4: its padding
    if (x < box.scrollLeft + left) box.scrollLeft = x - left;
    if (x + 2 * size > box.scrollLeft + box.clientWidth) box.scrollLeft = x + 2 * size - box.clientWidth;
  }

  data.cells.forEach((c, index) => picker.add(new Option(c.name, index)));
  picker.addEventListener("change", () => open(Number(picker.value)));
  filter.addEventListener("input", list);
  clear.addEventListener("change", list);
  canvas.addEventListener("mousemove", (event) => choose(under(event)));
  canvas.addEventListener("click", (event) => choose(under(event)));
  canvas.addEventListener("focus", () => { if (!chosen) choose(edges[0]); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !chosen) return;
    event.preventDefault();
    choose(beside(chosen, step)); follow();
  });
  body.addEventListener("keydown", (event) => {
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!next) return;
    event.preventDefault();
    event.target.closest("tr")[next]?.focus();
  });
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => { show = button.dataset.show; draw(); });
  }
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const key = button.dataset.sort, isName = key === "writer" || key === "reader";
      downwards = key === sort ? !downwards : !isName;  // names from the first, numbers from the largest
      sort = key; list();
    });
  }
  let drawn = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== drawn) { drawn = window.innerWidth; draw(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  open(0);
})();
