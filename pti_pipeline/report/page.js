// Joins each stage's slider to its curves and samples. Without it every sample grid is shown.
"use strict";
for (const stage of document.querySelectorAll("[data-stage]")) {
  const slider = stage.querySelector("input[type=range]");
  const stops = [...stage.querySelectorAll(".stop")];
  if (!slider || !stops.length) continue;
  const places = stops.map((stop) => Math.round(1000 * stop.dataset.at));
  let current = Math.max(0, stops.findIndex((stop) => stop.classList.contains("chosen")));

  const show = (index) => {
    current = Math.min(Math.max(index, 0), stops.length - 1);
    const stop = stops[current];
    const x = 100 * stop.dataset.at + "%";
    stops.forEach((other, i) => other.classList.toggle("on", i === current));
    for (const line of stage.querySelectorAll(".cursor")) {
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    for (const point of stage.querySelectorAll(".point[data-run]")) {
      point.classList.toggle("on", point.dataset.run === stop.dataset.run);
    }
    slider.value = places[current];
    slider.setAttribute("aria-valuetext", stop.dataset.title);
  };

  const nearest = (value) =>
    places.reduce((best, place, i) =>
      Math.abs(place - value) < Math.abs(places[best] - value) ? i : best, 0);

  slider.addEventListener("input", () => {
    const moved = slider.value - places[current];
    // A key or a screen reader moves by one: that means the next grid.
    show(Math.abs(moved) === 1 ? current + moved : nearest(slider.value));
  });
  slider.addEventListener("keydown", (event) => {
    const by = { PageDown: -3, PageUp: 3 }[event.key];
    if (by) {
      event.preventDefault();
      show(current + by);
    }
  });
  for (const point of stage.querySelectorAll(".point[data-run]")) {
    const index = stops.findIndex((stop) => stop.dataset.run === point.dataset.run);
    if (index >= 0) point.addEventListener("click", () => show(index));
  }
  stage.classList.add("live");
  show(current);
}
