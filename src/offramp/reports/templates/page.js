"use strict";
// The page's own script: the threshold slider, the browser of examples, exports and the colour switch. It writes every
// value as text, never as markup, and fetches nothing.
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const data = (box) => JSON.parse(box.querySelector("script").textContent);
  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
  const width = (share) => `${(100 * share).toFixed(1)}%`; // for the style sheet

  /** An element with attributes (`style` sets custom properties) and children; strings become text. */
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  const fill = (select, names) => select.replaceChildren(...names.map((name, i) => make("option", { value: i }, name)));

  // ---- Light and dark ------------------------------------------------------------------------------------------
  const theme = document.querySelector(".theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const named = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; named(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
  named();

  // ---- The threshold slider ------------------------------------------------------------------------------------
  const rung = (label, share, words, shade) => make("div", { class: "rung" }, make("span", {}, label),
    make("span", {}, make("i", { style: { "--share": width(share), ...(shade && { "--shade": shade }) } })), make("b", {}, words));

  for (const box of all("[data-explorer]")) {
    const { metric, models } = data(box);
    const [select, slider] = [box.querySelector("select"), box.querySelector("input")];
    const [marker, own] = [box.querySelector(".marker"), box.querySelector(".own")];
    const show = (name, text) => { box.querySelector(`[data-show="${name}"]`).textContent = text; };
    const model = () => models[select.value];

    function update() {
      const { colour, layers, batch, points } = model();
      const [threshold, x, y, score, low, high, cost, depth, shares, time] = points[slider.value];
      const written = threshold === null ? "–" : String(Number(threshold.toPrecision(4)));
      box.querySelector("output").textContent = `${model().rule} ${written}`;
      show("score", percent(score));
      show("interval", low === null ? "no interval recorded" : `[${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`);
      show("cost", percent(cost, 0));
      show("latency", time === null ? "not timed" : `${time.toFixed(time < 10 ? 2 : 1)} ms`);
      show("batch", time === null ? "" : `a text, batch size ${batch}`);
      show("depth", depth.toFixed(2));
      const bars = shares.map((share, i) => rung(`layer ${layers[i]}`, share, percent(share, 0), `var(--c${colour})`));
      box.querySelector('[data-show="shares"]').replaceChildren(...bars);
      slider.setAttribute("aria-valuetext", `${written}: ${metric} ${percent(score)}, cost ${percent(cost, 0)}`);
      marker.removeAttribute("hidden");
      const [line, dot] = marker.children;
      for (const end of ["x1", "x2"]) line.setAttribute(end, x);
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", y);
      dot.setAttribute("style", `fill: var(--c${colour})`);
    }

    function choose() {
      const start = model().own ?? Math.floor(model().points.length / 2);
      slider.max = model().points.length - 1;
      slider.value = start;
      own.disabled = model().own === null;
      update();
    }

    // A click in the chart goes to the nearest point of any model.
    const svg = box.querySelector("svg");
    svg.addEventListener("click", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const distances = models.flatMap(({ points }, m) => points.map(([, x, y], i) => [Math.hypot(x - at.x, y - at.y), m, i]));
      const [, nearest, position] = distances.reduce((best, next) => (next[0] < best[0] ? next : best));
      select.value = nearest;
      choose();
      slider.value = position;
      update();
    });
    fill(select, models.map(({ label }) => label));
    select.addEventListener("change", choose);
    slider.addEventListener("input", update);
    own.addEventListener("click", choose);
    // The model with the cheapest policy first.
    const spent = models.map(({ own: at, points }, i) => [at === null ? Infinity : points[at][6], i]);
    select.value = spent.reduce((best, next) => (next[0] < best[0] ? next : best))[1];
    choose();
  }

  // ---- Adversarial examples ------------------------------------------------------------------------------------
  const PAGE = 20; // examples in the document at once
  const FILTERS = {
    all: () => true,
    slowed: ({ exits }) => exits[1] > exits[0],
    answer: ({ answers }) => answers[0] !== answers[1],
    held: ({ exits }) => exits[1] <= exits[0],
  };
  const SORTS = {
    slowed: (a, b) => a.exits[0] - a.exits[1] - (b.exits[0] - b.exits[1]) || a.changed - b.changed || a.id - b.id,
    few: (a, b) => a.changed - b.changed || a.id - b.id,
    similarity: (a, b) => (b.similarity ?? -1) - (a.similarity ?? -1) || a.id - b.id,
    id: (a, b) => a.id - b.id,
  };

  /** The likeliest classes at an exit as one bar; grey beyond the exit where the text leaves. */
  function stack(rungs, exit, leaves, name) {
    const state = exit === leaves ? "taken" : exit > leaves ? "beyond" : "passed";
    const words = { taken: "leaves here", beyond: "not run", passed: "passes" }[state];
    if (!rungs) return make("div", { class: "plainly" }, words);
    const said = rungs[exit].map(([label, share]) => `${name(label)} ${percent(share, 0)}`).join(", ");
    const parts = rungs[exit].map(([label, share]) => make("span",
      { style: { "--share": width(share), "--shade": `var(--c${label % 7})` } }, share < 0.3 ? "" : `${name(label)} ${percent(share, 0)}`));
    return make("div", { class: `stack ${state}`, role: "img", "aria-label": `${words}: ${said}`, title: `${words}: ${said}` }, ...parts);
  }

  function ladder({ layers }, { exits, ladder: sides }, name) {
    const rows = layers.flatMap((layer, exit) => [make("div", {}, `layer ${layer}`),
      ...sides.map((rungs, side) => stack(rungs, exit, exits[side], name))]);
    const heads = ["exit", "clean", "attacked"].map((words) => make("div", { class: "head" }, words));
    const note = sides[0] ? "Outlined: the text leaves here. Faint: exits that it never reaches." : "The record has no probabilities: attack again to see them.";
    return make("details", {}, make("summary", {}, "Ladder of exits"), make("div", { class: "ladder" }, ...heads, ...rows), make("p", { class: "note" }, note));
  }

  function example(attack, row) {
    const name = (answer) => answer === null ? "unknown" : attack.classes[answer] ?? String(answer);
    const [before, after] = row.exits.map((exit) => attack.layers[exit] ?? "?");
    const facts = [`${row.changed ?? "?"} of ${row.words ?? "?"} words changed`,
      row.answers[0] === row.answers[1] ? `answers ${name(row.answers[0])}` : `answer ${name(row.answers[0])} → ${name(row.answers[1])}`,
      `label ${name(row.label)}`, ...(row.similarity === null ? [] : [`similarity ${row.similarity}`]), `example ${row.id}`];
    const texts = row.segments.map((parts) => make("p", { class: "text" }, ...parts.map(([words, kind]) =>
      kind === 0 ? words : make(kind === 1 ? "del" : "ins", {}, words)).flatMap((part, i) =>
      i && parts[i - 1][1] === 1 && parts[i][1] === 2 ? [" ", part] : [part])));
    return make("article", { class: "example" }, make("h3", {}, `Leaves after layer ${before} → ${after}`),
      make("p", { class: "facts" }, facts.join(" · ")), ...texts, ladder(attack, row, name));
  }

  for (const box of all("[data-browser]")) {
    const attacks = data(box);
    const control = Object.fromEntries(all("[data-control]", box).map((part) => [part.dataset.control, part]));
    const [list, count] = ["list", "count"].map((name) => box.querySelector(`[data-show="${name}"]`));
    const steps = all("[data-step]", box);
    // Each text once in lower case, for the search.
    for (const { rows } of attacks) for (const row of rows) row.searched = row.segments.flat().map(([words]) => words).join("").toLowerCase();
    let [chosen, start] = [[], 0];

    function render() {
      const attack = attacks[control.attack.value];
      list.replaceChildren(...chosen.slice(start, start + PAGE).map((row) => example(attack, row)));
      const first = list.querySelector("details");
      if (first) first.open = true;
      const last = Math.min(start + PAGE, chosen.length);
      count.textContent = chosen.length ? `${start + 1} to ${last} of ${chosen.length.toLocaleString("en")}` : "No example fits.";
      steps[0].disabled = start === 0;
      steps[1].disabled = last >= chosen.length;
    }

    function select() {
      const query = control.query.value.trim().toLowerCase();
      const fits = FILTERS[control.filter.value];
      chosen = attacks[control.attack.value].rows.filter((row) => fits(row) && row.searched.includes(query)).sort(SORTS[control.sort.value]);
      start = 0;
      render();
    }

    fill(control.attack, attacks.map(({ label, rows }) => `${label} (${rows.length.toLocaleString("en")})`));
    box.querySelector(".controls").addEventListener("input", select);
    for (const step of steps) step.addEventListener("click", () => { start += PAGE * step.dataset.step; render(); });
    select();
  }

  // ---- Exports ---------------------------------------------------------------------------------------------------
  function save(name, type, content) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  const filed = (title, ending) => `${title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").toLowerCase()}.${ending}`;

  /** A chart as a file that needs no style sheet: the computed colours and sizes, on the colour of the page. */
  function drawn(svg) {
    const copy = svg.cloneNode(true);
    const copies = all("*", copy);
    all("*", svg).forEach((element, i) => {
      const style = getComputedStyle(element);
      for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "font-family", "font-size"]) {
        copies[i].setAttribute(name, style.getPropertyValue(name));
      }
      copies[i].removeAttribute("style");
    });
    const { width, height } = svg.viewBox.baseVal;
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ width, height, fill: getComputedStyle(document.body).backgroundColor })) paper.setAttribute(key, value);
    copy.prepend(paper);
    for (const [key, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) copy.setAttribute(key, value);
    return { width, height, source: new XMLSerializer().serializeToString(copy) };
  }

  function picture({ width, height, source }, name) {
    const [image, canvas] = [new Image(), make("canvas", { width: 3 * width, height: 3 * height })];
    image.addEventListener("load", () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(name, "image/png", blob));
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  }

  const cells = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  // Spreadsheets take cells that begin so for formulas; numbers may begin with a minus.
  const harmless = (text) => (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text.split(" ")[0])) ? `'${text}` : text);
  const csv = (table) => cells(table).map((row) => row.map((cell) =>
    `"${harmless(cell.replaceAll("−", "-")).replaceAll('"', '""')}"`).join(",")).join("\r\n") + "\r\n";

  function latex(table) {
    const marks = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "→": "$\\to$", "–": "--", "×": "$\\times$" };
    const plain = (text) => text.replace(/[\\~^−→–×&%$#_{}]/g, (mark) => marks[mark] ?? `\\${mark}`);
    const [head, ...rows] = cells(table).map((row) => `${row.map(plain).join(" & ")} \\\\`);
    const columns = [...table.rows[0].cells].map((cell) => (cell.classList.contains("word") ? "l" : "r")).join("");
    const title = plain(table.caption.textContent.trim());
    return ["% needs \\usepackage{booktabs}", "\\begin{table}", `\\caption{${title}}`, `\\begin{tabular}{${columns}}`, "\\toprule", head,
      "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""].join("\n");
  }

  function tools(box, what, kinds) {
    const buttons = Object.entries(kinds).map(([kind, act]) => {
      const button = make("button", { type: "button", "aria-label": `Save ${what} as ${kind}` }, kind);
      button.addEventListener("click", act);
      return button;
    });
    box.append(make("div", { class: "tools" }, ...buttons));
  }

  const exported = (box, title, draw) => tools(box, title, {
    SVG: () => save(filed(title, "svg"), "image/svg+xml", draw().source),
    PNG: () => picture(draw(), filed(title, "png")),
  });

  for (const box of all(".table")) {
    const table = box.querySelector("table");
    const title = table.caption.textContent;
    tools(box, title, {
      CSV: () => save(filed(title, "csv"), "text/csv", csv(table)),
      LaTeX: () => save(filed(title, "tex"), "application/x-tex", latex(table)),
    });
  }
  for (const box of all(".chart")) {
    const [svg, title] = [box.querySelector("svg"), box.querySelector("figcaption").textContent];
    exported(box, title, () => drawn(svg));
  }
  for (const box of all(".picture")) {
    const image = box.querySelector("img");
    const bytes = Uint8Array.from(atob(image.src.split(",")[1]), (byte) => byte.charCodeAt(0));
    exported(box, image.alt, () => ({ width: image.naturalWidth, height: image.naturalHeight, source: new TextDecoder().decode(bytes) }));
  }
})();
