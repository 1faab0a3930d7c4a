"use strict";
// Draws the figures with the colours of the theme, keeps their time axes together, and follows the theme.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")].filter((plot) => figures[plot.dataset.figure]);
  const linked = plots.filter((plot) => figures[plot.dataset.figure].linked);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const coarse = matchMedia("(pointer: coarse)");
  const config = {
    displayModeBar: coarse.matches ? false : undefined,
    displaylogo: false,
    responsive: true,
    showTips: false,
    doubleClick: "reset",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", scale: 1 },
  };

  // A colour is the name of a CSS variable, and only where a colour is meant: a token's text may look like one.
  function coloured(value, style, isColour) {
    if (typeof value === "string") {
      return isColour && value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, style, false));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, coloured(item, style, /color$/i.test(key))]),
    );
  }

  function draw(plot) {
    const { data, layout } = coloured(figures[plot.dataset.figure].figure, getComputedStyle(root), false);
    if (narrow.matches) {
      Object.assign(layout.margin, { l: 46, r: 6 });
      layout.font.size = 11;
      layout.legend.font = { size: 10 };
      if (layout.yaxis2) plot.style.height = `${figures[plot.dataset.figure].height + 110}px`; // for its longer legend
    }
    if (coarse.matches) layout.dragmode = false; // a finger on a plot scrolls the page
    if (plot.layout) {
      layout.xaxis.range = [...plot.layout.xaxis.range];
    }
    return Plotly.react(plot, data, layout, config);
  }

  function theme(name) {
    root.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = name === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(name === "dark"));
    button.setAttribute("aria-label", `Change to ${name === "dark" ? "light" : "dark"} colours`);
    return Promise.all(plots.filter((plot) => plot.layout).map(draw));
  }

  let following = false; // true while a plot moves because another one was moved
  function follow(moved, event) {
    if (following) return;
    const range = event["xaxis.range"] || [event["xaxis.range[0]"], event["xaxis.range[1]"]];
    if (range[0] === undefined) return;
    following = true;
    const others = linked.filter((plot) => plot !== moved && plot.layout);
    Promise.all(others.map((plot) => Plotly.relayout(plot, { "xaxis.range": [...range] }))).finally(() => {
      following = false;
    });
  }

  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target);
  });

  let hovering = false;
  function hover(from, event) {
    if (hovering || !event.xvals) return;
    hovering = true;
    for (const plot of linked) {
      if (plot === from || !seen.has(plot)) continue;
      const subplot = plot.layout.yaxis2 ? "xy2" : "xy";
      Plotly.Fx.hover(plot, { xval: event.xvals[0] }, subplot);
    }
    hovering = false;
  }
  function leave(from) {
    if (hovering) return;
    hovering = true;
    for (const plot of linked) if (plot !== from && seen.has(plot)) Plotly.Fx.unhover(plot);
    hovering = false;
  }

  async function start() {
    theme(dark.matches ? "dark" : "light");
    for (const plot of plots) {
      await draw(plot);
      if (!linked.includes(plot)) continue;
      plot.on("plotly_relayout", (event) => follow(plot, event));
      plot.on("plotly_hover", (event) => hover(plot, event));
      plot.on("plotly_unhover", () => leave(plot));
      watcher.observe(plot);
      await new Promise((resolve) => setTimeout(resolve)); // the page answers between two plots
    }
    root.dataset.ready = "yes";
  }

  document.getElementById("theme").addEventListener("click", () => {
    theme(root.dataset.theme === "dark" ? "light" : "dark");
  });
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  let before = "light";
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    theme("light");
  });
  addEventListener("afterprint", () => theme(before));
  start();
})();
