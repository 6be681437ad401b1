// What the guest dirties against what the link carries, as it goes on.

import { rate } from "./figures.js";

const POINTS = 600;
const HEIGHT = 150;

export function chart(node) {
  const data = [[], [], []];
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  let plot = null;
  const draw = () => {
    plot = new uPlot(
      {
        width: Math.max(node.clientWidth, 200),
        height: HEIGHT,
        cursor: { show: false },
        legend: { live: false },
        scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
        axes: [
          { ...axis, values: (_, ticks) => ticks.map((at) => `${at} s`) },
          { ...axis, size: 84, values: (_, ticks) => ticks.map(rate) },
        ],
        series: [
          {},
          { label: "guest dirties", stroke: colour("--warn"), width: 2 },
          { label: "on the link", stroke: colour("--strong"), width: 2 },
        ],
      },
      data,
      node,
    );
    new ResizeObserver(() => plot.setSize({ width: Math.max(node.clientWidth, 200), height: HEIGHT })).observe(node);
  };
  const show = () => {
    if (!data[0].length) return;
    if (!plot) draw();
    plot.setData(data);
  };
  return {
    // What was told before the page was there to hear it.
    begin({ items }, startedAt) {
      const heardFrom = data[0][0] ?? Infinity;
      const before = items.map(({ at, progress }) => [at - startedAt, progress.dirty_rate_bytes_s, progress.wire_rate_bytes_s]);
      const missed = before.filter(([at]) => at < heardFrom);
      data.forEach((figures, row) => figures.unshift(...missed.map((point) => point[row])));
      show();
    },
    update(migration) {
      const at = Date.now() / 1000 - migration.started_at;
      const last = data[0][data[0].length - 1] ?? -1;
      if (migration.outcome || !(at > last)) return;
      [at, migration.progress.dirty_rate_bytes_s, migration.progress.wire_rate_bytes_s].forEach((figure, row) => {
        data[row].push(figure);
        if (data[row].length > POINTS) data[row].shift();
      });
      show();
    },
  };
}
