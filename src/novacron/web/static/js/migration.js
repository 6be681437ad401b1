// One migration that is under way, or whose window is open: a card.

import { ask } from "./api.js";
import { bar } from "./bar.js";
import { chart } from "./chart.js";
import { element, write } from "./element.js";
import { moment, rate, size, span } from "./figures.js";
import { split } from "./split.js";
import { PHASES, track } from "./track.js";

const COMMITTED = PHASES.indexOf("committed");

function facts(migration) {
  const { progress, summary } = migration;
  if (summary) {
    return {
      "total time": span(summary.total_ms),
      downtime: span(summary.downtime_ms),
      rounds: String(summary.rounds),
      "guest bytes": size(summary.guest_bytes),
      "on the wire": size(summary.wire_bytes),
      verified: [summary.verified ? "yes" : "no", summary.verdict].filter(Boolean).join(": "),
    };
  }
  return {
    round: String(progress.round),
    "guest bytes": `${size(progress.done_bytes)} of ${size(progress.total_bytes)}`,
    "on the wire": size(progress.wire_bytes),
    link: rate(progress.wire_rate_bytes_s),
    "guest dirties": rate(progress.dirty_rate_bytes_s),
    "time left": progress.converging === false ? "will not converge" : progress.eta_ms == null ? "…" : span(progress.eta_ms),
    "round trip": progress.rtt_ms ? span(progress.rtt_ms) : "…",
  };
}

function begins({ attempt, begins_at: at, waits_for: why }) {
  return `${attempt > 1 ? `attempt ${attempt} ` : ""}begins at ${moment(at)}${why ? `: ${why}` : ""}`;
}

export function list(node) {
  return (named) => {
    const names = Object.keys(named);
    if (node.dataset.names !== names.join()) {
      node.dataset.names = names.join();
      node.replaceChildren(...names.map((name) => element("div", {}, element("dt", {}, name), element("dd"))));
    }
    names.forEach((name, at) => write(node.children[at].lastChild, named[name]));
  };
}

export function nextCommand(problem) {
  return problem?.next_command ? [element("p", {}, "next: ", element("code", {}, problem.next_command))] : [];
}

// The chart of a migration; `begin` fetches what it has told so far. Without that the chart begins now.
function rateChart(migration) {
  const drawing = element("div", { class: "chart", role: "img", "aria-label": "what the guest dirties against what the link carries" });
  const rates = chart(drawing);
  const begin = () => ask(`/migrations/${migration.id}/series`).then((series) => rates.begin(series, migration.started_at), () => {});
  return { drawing, rates, begin };
}

// `act(migration, verb)` asks for confirmation and does it.
export function card(first, act) {
  const title = `${first.vm_name}: ${first.source_cluster} → ${first.target_cluster}`;
  const phases = track(), progress = bar(`progress of ${title}`), bytes = split();
  const figures = element("dl", { class: "figures" });
  const write_facts = list(figures);
  const note = element("p", { class: "note" });
  const { drawing, rates, begin } = rateChart(first);
  begin();
  let now = first;
  const cancel = element("button", { type: "button", onclick: () => act(now, "cancel") }, "Cancel");
  const rollback = element("button", { type: "button", onclick: () => act(now, "rollback") }, "Roll back");
  const node = element(
    "article",
    { "data-id": first.id, "aria-label": title },
    element("header", {}, element("h3", {}, title), element("div", { class: "buttons" }, cancel, rollback)),
    phases.node, progress.node, figures, bytes.node, drawing, note,
  );
  return {
    node,
    update(migration) {
      now = migration;
      const at = PHASES.indexOf(migration.phase);
      cancel.hidden = migration.direction !== "outgoing" || at >= COMMITTED || Boolean(migration.outcome);
      rollback.hidden = migration.direction !== "outgoing" || migration.phase !== "window";
      phases.update(migration);
      progress.update(migration);
      write_facts(facts(migration));
      bytes.update((migration.summary ?? migration.progress).split);
      rates.update(migration);
      write(note, migration.phase === "waiting" ? begins(migration) : migration.progress.note);
    },
  };
}

// One that has ended: a line that opens.
export function line(first) {
  const outcome = element("span"), route = element("span"), figures = element("span", { class: "quiet" });
  const more = element("dl", { class: "figures" }), bytes = split(), problem = element("div");
  const { drawing, begin } = rateChart(first);
  const node = element("details", { "data-id": first.id }, element("summary", {}, route, outcome, figures), more, bytes.node, drawing, problem);
  node.addEventListener("toggle", begin, { once: true });
  const write_facts = list(more);
  return {
    node,
    update(migration) {
      const { summary } = migration;
      write(route, `${migration.vm_name}: ${migration.source_cluster} → ${migration.target_cluster}`);
      write(outcome, migration.outcome.replaceAll("_", " "));
      outcome.className = migration.outcome === "succeeded" ? "good" : migration.outcome === "failed" ? "problem" : "note";
      write(figures, summary ? `${span(summary.total_ms)}, stood still ${span(summary.downtime_ms)}, ${size(summary.wire_bytes)} on the wire` : "");
      write_facts(summary ? facts(migration) : {});
      bytes.node.hidden = !summary;
      if (summary) bytes.update(summary.split);
      if (migration.problem) problem.replaceChildren(element("p", { class: "problem" }, `${migration.problem.cause} (${migration.problem.code})`), ...nextCommand(migration.problem));
    },
  };
}
