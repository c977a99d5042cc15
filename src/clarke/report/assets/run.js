"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const NS = "http://www.w3.org/2000/svg";
  // Hues that no verdict has; lines differ in their dashes as well.
  const HUES = ["rgb(var(--heat))", "#c2569b", "#7c8797", "#5f6fd0", "#a9809a", "#4b5a70"];
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "12 4"];
  let WIDTH = 1000, LEFT = 150;   // in CSS pixels, set from the space there is
  const RIGHT = 26;
  const bins = data.starts.length;
  const x = (b) => LEFT + ((WIDTH - LEFT - RIGHT) * b) / Math.max(bins, 1);
  const middle = (b) => (x(b) + x(b + 1)) / 2;
  const off = new Set();          // verdicts switched off
  let metric = "relevant";

  function el(parent, name, attributes, text) {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }
  function clear(id, height, label) {
    const host = document.getElementById(id);
    host.replaceChildren();
    WIDTH = Math.max(280, host.clientWidth);
    LEFT = Math.min(160, Math.round(WIDTH * 0.3));
    return el(host, "svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  }
  const number = (v) => v === Math.round(v) ? v.toLocaleString("en") : String(Number(v.toPrecision(2)));
  function steps(b) {
    const from = data.starts[b], to = b + 1 < bins ? data.starts[b + 1] - 1 : data.last;
    return from >= to ? `step ${number(from)}` : `steps ${number(from)} to ${number(to)}`;
  }
  function hover(node, words) {
    node.addEventListener("pointermove", (event) => {
      tip.textContent = words();
      tip.style.display = "block";
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${event.clientY + 16}px`;
    });
    node.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  }
  // The number of a column's first step, under the middle of the column.
  function stepAxis(svg, y) {
    const wanted = Math.min(bins, WIDTH < 520 ? 3 : 6);
    for (let i = 0; i < wanted; i++) {
      const b = wanted === 1 ? 0 : Math.round((i * (bins - 1)) / (wanted - 1));
      el(svg, "text", { class: "step", x: middle(b), y, "text-anchor": "middle" }, number(data.starts[b]));
    }
    el(svg, "text", { x: LEFT - 10, y, "text-anchor": "end" }, "step");
  }

  function timeline() {
    if (!document.getElementById("timeline")) return;
    const height = 150, top = 8, bottom = height - 24;
    const svg = clear("timeline", height, "Verdicts over the run");
    const shown = data.verdicts.filter((v) => !off.has(v.key));
    const totals = data.starts.map((_, b) => data.verdicts.reduce((s, v) => s + v.counts[b], 0));
    el(svg, "line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: bottom, y2: bottom });
    el(svg, "text", { x: LEFT - 10, y: top + 10, "text-anchor": "end" }, "all steps");
    el(svg, "text", { x: LEFT - 10, y: bottom, "text-anchor": "end" }, "none");
    const right = new Set(["SMOOTH", "BOULIGAND", "CLARKE", "NONE"]);
    const late = [];                // what is not right is seen in the narrowest column
    for (let b = 0; b < bins; b++) {
      let y = bottom;
      const group = el(svg, "g");
      for (const v of shown) {
        if (!v.counts[b]) continue;
        let h = ((bottom - top) * v.counts[b]) / totals[b];
        if (v.key !== "SMOOTH" && v.key !== "NONE") h = Math.max(h, 3);  // one wrong step is seen
        h = Math.min(h, y - top);
        y -= h;
        el(group, "rect", {
          x: x(b), y, width: Math.max(x(b + 1) - x(b) - (bins < 90 ? 1 : 0), right.has(v.key) ? 0.8 : 2.5), height: h,
          style: `fill: var(--${v.key})`,
        });
        if (!right.has(v.key)) late.push(group);
      }
      hover(group, () => steps(b) + shown.filter((v) => v.counts[b])
        .map((v) => `\n${v.label}: ${number(v.counts[b])}`).join(""));
    }
    for (const group of late.reverse()) svg.append(group);
    stepAxis(svg, height - 8);
  }

  const TITLES = { relevant: "kinks that matter", touched: "touched kinks", share: "% of elements on a kink" };
  function value(layer, b) {
    if (metric === "share") return layer.elements[b] ? (100 * layer.touched[b]) / layer.elements[b] : 0;
    return layer[metric][b];
  }

  // Every level where there are few, else 1, 10, 100, ... and the largest.
  function ticks(levels, y) {
    const most = levels[levels.length - 1];
    const wanted = levels.length <= 6 ? levels : [most];
    if (levels.length > 6) for (let p = Math.floor(Math.log10(most)); 10 ** p >= levels[0]; p--) wanted.push(10 ** p);
    const shown = [];
    for (const v of wanted.sort((a, b) => b - a)) {
      if (shown.every((other) => Math.abs(y(other) - y(v)) >= 13)) shown.push(v);
    }
    return shown;
  }

  function lines(layers) {
    const height = 230, top = 12, bottom = height - 26;
    const svg = clear("kinks", height, `${TITLES[metric]} by layer`);
    const levels = [...new Set(layers.flatMap((e) => e.values))].filter(Boolean).sort((a, b) => a - b);
    const low = levels[0] / 2, span = Math.max(Math.log(levels[levels.length - 1] / low), 1e-9);
    const y = (v) => v ? bottom - 16 - ((bottom - 16 - top) * Math.log(v / low)) / span : bottom;
    el(svg, "line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: bottom, y2: bottom });
    el(svg, "text", { x: LEFT - 10, y: bottom + 4, "text-anchor": "end" }, "0");
    for (const v of ticks(levels, y)) {
      el(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) });
      el(svg, "text", { class: "level", x: LEFT - 10, y: y(v) + 4, "text-anchor": "end" }, number(v));
    }
    layers.forEach((e, i) => {
      const some = e.values.map((v, b) => b).filter((b) => e.values[b]);
      const rare = some.length <= Math.max(2, bins / 5);
      if (!rare) el(svg, "polyline", {
        points: e.values.map((v, b) => `${middle(b).toFixed(1)},${y(v).toFixed(1)}`).join(" "), fill: "none",
        "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": DASHES[i], style: `stroke: ${HUES[i]}`,
      });
      for (const b of rare ? some : []) {
        const dot = el(svg, "circle", { cx: middle(b), cy: y(e.values[b]), r: 3.5, style: `fill: ${HUES[i]}` });
        hover(dot, () => `${e.name}\n${steps(b)}\n${TITLES[metric]}: ${number(e.values[b])}`);
        if (some.length <= 12 && levels.length > 6) {  // whose level has no tick
          const anchor = middle(b) > WIDTH - 60 ? "end" : "start", side = anchor === "end" ? -7 : 7;
          el(svg, "text", { x: middle(b) + side, y: y(e.values[b]) + 4, "text-anchor": anchor }, number(e.values[b]));
        }
      }
    });
    stepAxis(svg, height - 8);
    document.getElementById("legend").replaceChildren(...layers.map((e, i) => {
      const tag = document.createElement("span");
      tag.className = "tag";
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = HUES[i];
      tag.append(swatch, e.name);
      return tag;
    }));
  }

  function heat(layers) {
    const row = 18, top = 4, height = top + row * layers.length + 26;
    const svg = clear("heat", height, `${TITLES[metric]} by layer and step`);
    const most = Math.max(...layers.flatMap((e) => e.values));
    const room = Math.floor((LEFT - 14) / 6.2);
    layers.forEach((layer, i) => {
      const short = layer.name.length > room ? "…" + layer.name.slice(1 - room) : layer.name;
      hover(el(svg, "text", { x: LEFT - 10, y: top + row * i + 13, "text-anchor": "end" }, short), () => layer.name);
      el(svg, "rect", { x: LEFT, y: top + row * i, width: WIDTH - LEFT - RIGHT, height: row - 2, style: "fill: var(--grid)" });
      layer.values.forEach((v, b) => {
        if (!v) return;
        const cell = el(svg, "rect", {
          x: x(b), y: top + row * i, width: Math.max(x(b + 1) - x(b), 0.8) + 0.1, height: row - 2,
          style: `fill: rgba(var(--heat), ${(0.12 + 0.88 * (v / most) ** 0.6).toFixed(3)})`,
        });
        hover(cell, () => `${layer.name}\n${steps(b)}\n${TITLES[metric]}: ${number(v)}`);
      });
    });
    stepAxis(svg, height - 8);
  }

  // Few layers as lines, many as rows.
  function kinks() {
    if (!document.getElementById("kinks")) return;
    const layers = data.layers.map((l) => ({ name: l.name, values: data.starts.map((_, b) => value(l, b)) }))
      .filter((e) => e.values.some(Boolean));
    for (const id of ["kinks", "heat", "legend"]) document.getElementById(id).replaceChildren();
    if (!layers.length) document.getElementById("legend").textContent = `There are no ${TITLES[metric]} in this run.`;
    else if (layers.length <= HUES.length) lines(layers);
    else heat(layers);
  }

  function filter() {
    const search = document.getElementById("search");
    const text = (search ? search.value : "").trim().toLowerCase();
    let left = 0;
    for (const node of document.querySelectorAll("[data-text]")) {
      const verdicts = node.dataset.verdicts.split(" ").filter(Boolean);
      const hidden = (verdicts.length && verdicts.every((v) => off.has(v))) ||
        !node.dataset.text.toLowerCase().includes(text);
      node.classList.toggle("gone", Boolean(hidden));
      if (!hidden && node.classList.contains("line")) left += 1;
    }
    if (search) document.getElementById("left").textContent = `${number(left)} shown`;
  }

  for (const button of document.querySelectorAll("button[data-verdict]")) {
    button.addEventListener("click", () => {
      const key = button.dataset.verdict;
      if (off.has(key)) off.delete(key); else off.add(key);
      button.setAttribute("aria-pressed", String(!off.has(key)));
      timeline();
      filter();
    });
  }
  const choose = document.getElementById("metric");
  if (choose) {
    if (!data.layers.some((l) => l.relevant.some(Boolean))) choose.value = "touched";
    metric = choose.value;
    choose.addEventListener("change", () => { metric = choose.value; kinks(); });
  }
  const search = document.getElementById("search");
  if (search) search.addEventListener("input", filter);
  const draw = () => { timeline(); kinks(); };
  let drawnAt = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; draw(); } });
  draw();
  filter();
  document.documentElement.dataset.drawn = "yes";
})();
