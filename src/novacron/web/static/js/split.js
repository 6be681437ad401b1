// Guest bytes by what was done with them, as a bar and in words.

import { element, write } from "./element.js";
import { size } from "./figures.js";

const PARTS = [
  ["known", "known there", "unchanged_bytes"],
  ["zero", "zero", "zero_bytes"],
  ["dedup", "dedup", "dedup_bytes"],
  ["delta", "delta", "delta_bytes"],
  ["literal", "compressed", "literal_bytes"],
];
const WIDTH = 1000;

export function split() {
  const bars = PARTS.map(([name]) => element("rect", { class: name, y: 0, height: 10 }));
  const words = PARTS.map(() => document.createTextNode(""));
  const legend = PARTS.map(([name], at) =>
    element("li", {}, element("svg", { class: "split", viewBox: "0 0 10 10", "aria-hidden": "true" }, element("rect", { class: name, width: 10, height: 10 })), words[at]),
  );
  const drawing = element("svg", { class: "split", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars);
  return {
    node: element("div", {}, drawing, element("ul", { class: "legend", "aria-label": "guest bytes by how they were sent" }, ...legend)),
    update(figures) {
      const total = PARTS.reduce((sum, [, , field]) => sum + figures[field], 0) || 1;
      let x = 0;
      PARTS.forEach(([, word, field], at) => {
        const width = (figures[field] / total) * WIDTH;
        bars[at].setAttribute("x", x);
        bars[at].setAttribute("width", width);
        x += width;
        write(words[at], `${word} ${size(figures[field])}`);
      });
    },
  };
}
