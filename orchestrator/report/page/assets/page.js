"use strict";
(() => {
  const drawn = JSON.parse(document.getElementById("drawn").textContent);
  const config = {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: 400, labelLimit: 130 },
    legend: { labelFontSize: 11, titleFontSize: 11, symbolLimit: 40 },
  };
  const views = new Map(); // figure -> its drawn views

  const draw = (figure) => {
    if (views.has(figure)) return views.get(figure);
    const { charts, values } = drawn[figure.id];
    const all = Promise.all(
      [...figure.querySelectorAll(".drawing")].map((place) => {
        const chart = charts[Number(place.dataset.index)];
        const spec = {
          $schema: "https://vega.github.io/schema/vega-lite/v6.json",
          width: "container",
          autosize: { type: "fit-x", contains: "padding" },
          config,
          ...chart,
          data: { values },
        };
        return vegaEmbed(place, spec, { ast: true, renderer: "svg", actions: false }).then((result) => {
          place.style.minHeight = "0";
          return result.view;
        });
      }),
    ).then((found) => {
      const slider = figure.querySelector("input[type=range]");
      if (slider) move(figure, slider, found);
      figure.dataset.state = "drawn";
      return found;
    });
    views.set(figure, all);
    return all;
  };

  const words = (slider, value) => {
    const falling = slider.dataset.falling === "yes";
    const reached = JSON.parse(slider.dataset.says).filter(([at]) => (falling ? value <= at : value >= at));
    return reached.length ? reached[reached.length - 1][1] : "";
  };

  const shown = (value) =>
    Number.isInteger(value) && value < 1000 ? String(value) : Number(value.toPrecision(4)).toLocaleString("en");

  const move = (figure, slider, found) => {
    const value = Number(slider.value);
    const isTask = slider.dataset.parameter === "after";
    figure.querySelector("output").textContent = isTask ? String(value + 1) : shown(value);
    figure.querySelector(".says").textContent = words(slider, value);
    for (const view of found) view.signal(slider.dataset.parameter, value).runAsync();
  };

  for (const figure of document.querySelectorAll(".figure")) {
    const slider = figure.querySelector("input[type=range]");
    if (slider) slider.addEventListener("input", () => draw(figure).then((found) => move(figure, slider, found)));
  }
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          seen.unobserve(entry.target);
          draw(entry.target);
        }
      }
    },
    { rootMargin: "400px" },
  );
  document.querySelectorAll(".figure").forEach((figure) => seen.observe(figure));
  const drawAll = () => Promise.all([...document.querySelectorAll(".figure")].map(draw)).then(() => undefined);
  window.addEventListener("beforeprint", drawAll);
  window.drawAll = drawAll;

  const key = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("number") ? null : (cell.dataset.sort || cell.textContent).trim();
  };
  const before = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((one, two) => {
          const [a, b] = [key(one.cells[index]), key(two.cells[index])];
          const order = before(a, b);
          return a === null || b === null ? order : down ? -order : order;
        });
        body.append(...rows);
      });
    });
  }

  const live = document.body.dataset.live;
  if (live) {
    const shownState = document.querySelector("meta[name=continual-sweep-state]").content;
    const line = document.getElementById("live");
    let touched = -Infinity;
    document.addEventListener("input", () => (touched = performance.now()));
    const look = () =>
      fetch(live, { cache: "no-store" })
        .then((answer) => (answer.ok ? answer.text() : shownState))
        .then((state) => {
          if (state !== shownState && performance.now() - touched > 10000) location.reload();
          setTimeout(look, 3000);
        })
        .catch(() => {
          line.textContent = "The sweep that served this page has ended. Its last state is in report.html, in the run folder.";
        });
    look();
  }
})();
