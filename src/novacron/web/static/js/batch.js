// Many VMs on their way to one place: a card while they move, a line that opens when they have.

import { fraction } from "./bar.js";
import { arrange, element, write } from "./element.js";
import { moment, span } from "./figures.js";
import { nextCommand } from "./migration.js";

const MOVED = ["succeeded", "rolled_back", "unverified"];
const counted = (batch) => batch.moves.filter((move) => move.outcome !== "stays");

function route({ drains, moves, target_cluster: cluster, target_node: node }) {
  return `${drains || `${moves.length} VMs`} → ${node ? `${cluster}/${node}` : cluster}`;
}

function describe(batch) {
  const moves = counted(batch), count = (...outcomes) => moves.filter((move) => outcomes.includes(move.outcome)).length;
  const waiting = moves.filter((move) => !move.migration_id && !move.outcome).length;
  const parts = [`${count(...MOVED)} of ${moves.length} moved`];
  if (count("failed")) parts.push(`${count("failed")} failed`);
  if (waiting) parts.push(`${waiting} waiting`);
  if (batch.cancelling && !batch.outcome) parts.push("being cancelled");
  if (batch.begins_at && !batch.outcome) parts.push(`the time window opens at ${moment(batch.begins_at)}`);
  return parts.join(" · ");
}

// Of what there is to move, by guest bytes, as on the command line.
function reached(batch) {
  const moves = counted(batch), total = moves.reduce((sum, move) => sum + move.predicted_bytes, 0);
  const done = (move) => (move.outcome ? Number(MOVED.includes(move.outcome)) : fraction({ ...move, progress: move }));
  return total ? moves.reduce((sum, move) => sum + move.predicted_bytes * done(move), 0) / total : 0;
}

// One VM of it.
function moveRow() {
  const cells = [element("th", { scope: "row" }), element("td"), element("td")];
  const why = element("p", { class: "why" }), next = element("div");
  cells[2].append(why, next);
  let told = null;
  return {
    node: element("tr", {}, ...cells),
    update({ vm_name: name, outcome, phase, predicted, problem }) {
      write(cells[0], name);
      const expected = predicted && !outcome ? `, expected to take ${span(predicted.total_ms.value)}` : "";
      write(cells[1], `${outcome.replaceAll("_", " ") || phase}${expected}`);
      cells[1].className = outcome === "failed" ? "problem" : MOVED.includes(outcome) ? "good" : "";
      write(why, problem?.cause ?? "");
      if (told !== problem?.next_command) next.replaceChildren(...nextCommand(problem));
      told = problem?.next_command;
    },
  };
}

function moveTable(batch) {
  const body = element("tbody"), known = new Map();
  const heads = ["VM", "State", "Why"].map((name) => element("th", { scope: "col" }, name));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  return {
    node: element("div", { class: "scroll moves", tabindex: 0, role: "region", "aria-label": `VMs of ${route(batch)}, begun ${moment(batch.started_at)}` }, table),
    update: ({ moves }) => arrange(body, moves.map((move) => ({ ...move, id: move.vm_id })), known, moveRow),
  };
}

// `cancel(batch)` asks for confirmation and does it.
export function batchCard(first, cancel) {
  let now = first, shown = 0;
  const name = element("h3"), state = element("p"), problem = element("p", { class: "problem" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": `progress of ${route(first)}` });
  const table = moveTable(first);
  const button = element("button", { type: "button", onclick: () => cancel(now) }, "Cancel batch");
  const header = element("header", {}, name, element("div", { class: "buttons" }, button));
  return {
    node: element("article", { "data-id": first.id, "aria-label": route(first) }, header, bar, state, problem, table.node),
    update(batch) {
      now = batch;
      bar.value = shown = Math.max(shown, reached(batch));
      button.disabled = batch.cancelling;
      write(name, route(batch));
      write(state, describe(batch));
      write(problem, batch.problem?.cause ?? "");
      table.update(batch);
    },
  };
}

export function batchLine(first) {
  const name = element("span"), outcome = element("span"), state = element("span", { class: "quiet" });
  const table = moveTable(first), problem = element("p", { class: "problem" });
  return {
    node: element("details", { "data-id": first.id }, element("summary", {}, name, outcome, state), problem, table.node),
    update(batch) {
      write(name, route(batch));
      write(outcome, batch.outcome === "partial" ? "done in part" : batch.outcome);
      outcome.className = batch.outcome === "succeeded" ? "good" : batch.outcome === "failed" ? "problem" : "note";
      write(state, describe(batch));
      write(problem, batch.problem?.cause ?? "");
      table.update(batch);
    },
  };
}
