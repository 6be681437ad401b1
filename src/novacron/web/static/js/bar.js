// How far a migration is. The plan grows with each round, so the bar keeps the furthest that it has shown.

import { element } from "./element.js";

const COPIED = 0.96;
const REACHED = { waiting: 0, prepare: 0, copy: 0, switchover: COPIED, ready: 0.97, committed: 0.98, following: 0.985, verify: 0.99, window: 1, done: 1 };

export function fraction(migration, before = 0) {
  if (["succeeded", "unverified"].includes(migration.outcome)) return 1;
  const { done_bytes: done, total_bytes: total } = migration.progress;
  const copied = total ? Math.min(done / total, 1) * COPIED : 0;
  return Math.max(before, Math.min(Math.max(copied, REACHED[migration.phase] ?? 0), REACHED.verify));
}

export function bar(label) {
  let shown = 0;
  const node = element("progress", { max: 1, value: 0, "aria-label": label });
  return {
    node,
    update(migration) {
      shown = fraction(migration, shown);
      node.value = shown;
    },
  };
}
