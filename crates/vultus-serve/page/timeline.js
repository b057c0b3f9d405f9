// The stacked probabilities of one face over the last seconds.

import { paint } from "/view.js";

const SECONDS = 30;
const [WIDTH, HEIGHT] = [600, 150];
const GAP_MS = 4000;
const SVG = "http://www.w3.org/2000/svg";

export class Timeline {
  constructor(figure, labels, colours) {
    this.figure = figure;
    this.labels = labels;
    this.points = [];
    this.paths = labels.map((label) => {
      const path = document.createElementNS(SVG, "path");
      paint(path, label, colours);
      return path;
    });
    figure.querySelector("svg").replaceChildren(...this.paths);
    const names = labels.map((label) => {
      const name = document.createElement("li");
      name.textContent = label;
      paint(name, label, colours);
      return name;
    });
    figure.querySelector("ul").replaceChildren(...names);
    figure.querySelector("#span").textContent = String(SECONDS);
    this.said = 0;
  }

  clear() {
    this.points = [];
    this.paths.forEach((path) => path.setAttribute("d", ""));
    this.figure.querySelector("#trend").textContent = "";
  }

  /** Adds a face, or the absence of one, and draws. */
  add(face, now = performance.now()) {
    this.points.push({ now, shares: face && this.labels.map((label) => face.probabilities[label]) });
    this.points = this.points.filter((point) => now - point.now <= SECONDS * 1000);
    const runs = this.runs();
    const x = (point) => (WIDTH * (1 - (now - point.now) / (SECONDS * 1000))).toFixed(1);
    this.paths.forEach((path, index) => {
      const edge = (point, upTo) => (HEIGHT * (1 - point.shares.slice(0, upTo).reduce((a, b) => a + b, 0))).toFixed(1);
      const shapes = runs.map((run) => {
        const upper = run.map((point) => `${x(point)} ${edge(point, index + 1)}`);
        const lower = run.map((point) => `${x(point)} ${edge(point, index)}`).reverse();
        return `M${[...upper, ...lower].join("L")}Z`;
      });
      path.setAttribute("d", shapes.join(""));
    });
    this.describe(now);
  }

  /** Points without a gap between them: where there was no face, nothing is drawn. */
  runs() {
    const runs = [];
    let last = null;
    for (const point of this.points) {
      if (point.shares) {
        if (!last || point.now - last.now > GAP_MS) runs.push([]);
        runs.at(-1).push(point);
      }
      last = point.shares ? point : null;
    }
    return runs;
  }

  /** The mean in words, now and then, for those who do not see the picture. */
  describe(now) {
    const seen = this.points.filter((point) => point.shares);
    if (!seen.length || now - this.said < 1000) return;
    this.said = now;
    const mean = this.labels.map((label, index) => [label, seen.reduce((sum, point) => sum + point.shares[index], 0) / seen.length]);
    const [first, second] = mean.sort((a, b) => b[1] - a[1]);
    const words = [first, second].filter(Boolean).map(([label, share]) => `${label} ${Math.round(share * 100)} %`);
    this.figure.querySelector("#trend").textContent = `on average ${words.join(", ")}`;
  }
}
