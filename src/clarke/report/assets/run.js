"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const NS = "http://www.w3.org/2000/svg";
  let WIDTH = 1000, LEFT = 150;   // in CSS pixels, set from the space there is
  const RIGHT = 8;
  const bins = data.starts.length;
  const x = (b) => LEFT + ((WIDTH - LEFT - RIGHT) * b) / Math.max(bins, 1);
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
  const number = (v) => v === Math.round(v) ? v.toLocaleString("en") : v.toPrecision(3);
  function steps(b) {
    const from = data.starts[b], to = b + 1 < bins ? data.starts[b + 1] - 1 : data.last;
    return from >= to ? `step ${number(from)}` : `steps ${number(from)} to ${number(to)}`;
  }
  function hover(node, words) {
    node.addEventListener("pointermove", (event) => {
      tip.textContent = words();
      tip.style.display = "block";
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(4, left)}px`;
      tip.style.top = `${event.clientY + 16}px`;
    });
    node.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  }
  function stepAxis(svg, y) {
    if (!bins) return;
    const wanted = Math.min(bins, WIDTH < 520 ? 3 : 6);
    for (let i = 0; i < wanted; i++) {
      const b = wanted === 1 ? 0 : Math.round((i * (bins - 1)) / (wanted - 1));
      const anchor = i === 0 ? "start" : i === wanted - 1 ? "end" : "middle";
      const at = i === wanted - 1 && wanted > 1 ? x(bins) : x(b);
      el(svg, "text", { x: at, y, "text-anchor": anchor }, number(i === wanted - 1 ? data.last : data.starts[b]));
    }
    el(svg, "text", { x: LEFT - 10, y, "text-anchor": "end" }, "step");
  }
  function short(name) {
    const most = Math.floor((LEFT - 14) / 6.2);
    return name.length > most ? "…" + name.slice(1 - most) : name;
  }
  // Counts start at 1, shares wherever they do.
  const lowest = (most) => metric === "share" ? Math.max(1e-4, most / 1e4) : 1;

  function timeline() {
    const height = 150, top = 8, bottom = height - 24;
    const svg = clear("timeline", height, "Verdicts over the run");
    const shown = data.verdicts.filter((v) => !off.has(v.key));
    const totals = data.starts.map((_, b) => data.verdicts.reduce((s, v) => s + v.counts[b], 0));
    el(svg, "line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: bottom, y2: bottom });
    el(svg, "text", { x: LEFT - 10, y: top + 10, "text-anchor": "end" }, "all steps");
    el(svg, "text", { x: LEFT - 10, y: bottom, "text-anchor": "end" }, "none");
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
          x: x(b), y, width: Math.max(x(b + 1) - x(b) - (bins < 90 ? 1 : 0), 0.8), height: h,
          style: `fill: var(--${v.key})`,
        });
      }
      hover(group, () => steps(b) + shown.filter((v) => v.counts[b])
        .map((v) => `\n${v.label}: ${number(v.counts[b])}`).join(""));
    }
    stepAxis(svg, height - 8);
  }

  const TITLES = { relevant: "relevant kinks", touched: "touched kinks", share: "% of elements on a kink" };
  function value(layer, b) {
    if (metric === "share") return layer.elements[b] ? (100 * layer.touched[b]) / layer.elements[b] : 0;
    return layer[metric][b];
  }
  const hue = (i) => `hsl(${(205 + i * 67) % 360} 58% ${matchMedia("(prefers-color-scheme: dark)").matches ? 66 : 42}%)`;

  function kinks() {
    const height = 250, top = 10, bottom = height - 26;
    const svg = clear("kinks", height, `${TITLES[metric]} by layer`);
    const layers = data.layers.map((l, i) => ({ l, i, sum: l.touched.reduce((s, _, b) => s + value(l, b), 0) }))
      .filter((e) => e.sum > 0).sort((a, b) => b.sum - a.sum).slice(0, 6);
    const most = Math.max(...layers.flatMap((e) => e.l.touched.map((_, b) => value(e.l, b))), 0);
    const low = lowest(most);
    const y = (v) => bottom - ((bottom - top) * Math.log1p(v / low)) / Math.max(Math.log1p(most / low), 1e-9);
    let last = bottom;
    for (let p = -4; p <= Math.log10(Math.max(most, 1e-4)); p++) {
      const v = 10 ** p;
      if (v < low || last - y(v) < 14) continue;
      last = y(v);
      el(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) });
      el(svg, "text", { x: LEFT - 10, y: y(v) + 4, "text-anchor": "end" }, number(v));
    }
    if (most && last - top > 14) el(svg, "text", { x: LEFT - 10, y: top + 4, "text-anchor": "end" }, number(most));
    el(svg, "line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: bottom, y2: bottom });
    el(svg, "text", { x: LEFT - 10, y: bottom + 4, "text-anchor": "end" }, "0");
    for (const e of layers) {
      const points = data.starts.map((_, b) => `${((x(b) + x(b + 1)) / 2).toFixed(1)},${y(value(e.l, b)).toFixed(1)}`);
      const line = el(svg, "polyline", { points: points.join(" "), fill: "none", "stroke-width": 1.8, "stroke-linejoin": "round", style: `stroke: ${hue(e.i)}` });
      if (bins === 1) el(svg, "circle", { cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 4, style: `fill: ${hue(e.i)}` });
      hover(line, () => e.l.name);
    }
    stepAxis(svg, height - 8);
    const legend = document.getElementById("legend");
    legend.replaceChildren(...layers.map((e) => {
      const tag = document.createElement("span");
      tag.className = "tag";
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = hue(e.i);
      tag.append(swatch, e.l.name);
      return tag;
    }));
    if (!layers.length) legend.textContent = `No ${TITLES[metric]} in this run.`;
  }

  function heat() {
    const row = 18, top = 4, bottom = top + row * data.layers.length, height = bottom + 26;
    const svg = clear("heat", height, `${TITLES[metric]} by layer and step`);
    const most = Math.max(...data.layers.flatMap((l) => l.touched.map((_, b) => value(l, b))), 0);
    const low = lowest(most);
    data.layers.forEach((layer, i) => {
      const name = el(svg, "text", { x: LEFT - 10, y: top + row * i + 13, "text-anchor": "end" }, short(layer.name));
      hover(name, () => layer.name);
      el(svg, "rect", { x: LEFT, y: top + row * i, width: WIDTH - LEFT - RIGHT, height: row - 2, style: "fill: var(--grid)" });
      for (let b = 0; b < bins; b++) {
        const v = value(layer, b);
        if (!v) continue;
        const strength = 0.12 + 0.88 * (v / most) ** 0.6;
        const cell = el(svg, "rect", {
          x: x(b), y: top + row * i, width: Math.max(x(b + 1) - x(b), 0.8) + 0.1, height: row - 2,
          style: `fill: rgba(var(--heat), ${strength.toFixed(3)})`,
        });
        hover(cell, () => `${layer.name}\n${steps(b)}\n${TITLES[metric]}: ${number(v)}`);
      }
    });
    stepAxis(svg, height - 8);
  }

  function filter() {
    const text = (document.getElementById("search") || { value: "" }).value.trim().toLowerCase();
    let left = 0;
    for (const node of document.querySelectorAll("[data-text]")) {
      const verdicts = node.dataset.verdicts.split(" ").filter(Boolean);
      const hidden = (verdicts.length && verdicts.every((v) => off.has(v))) ||
        !node.dataset.text.toLowerCase().includes(text);
      node.classList.toggle("gone", Boolean(hidden));
      if (!hidden && node.tagName === "TR") left += 1;
    }
    const count = document.getElementById("left");
    if (count) count.textContent = `${number(left)} shown`;
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
    choose.addEventListener("change", () => { metric = choose.value; kinks(); heat(); });
  }
  const search = document.getElementById("search");
  if (search) search.addEventListener("input", filter);
  const draw = () => { timeline(); if (data.layers.length) { kinks(); heat(); } };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let drawnAt = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; draw(); } });
  draw();
  filter();
  document.documentElement.dataset.drawn = "yes";
})();
