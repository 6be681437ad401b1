// The page: follows the cluster and shows it; asks before it acts.

import { ask } from "./api.js";
import { batchCard, batchLine } from "./batch.js";
import { confirm } from "./dialog.js";
import { arrange } from "./element.js";
import { card, line } from "./migration.js";
import { box } from "./sites.js";
import { State } from "./state.js";
import { follow } from "./stream.js";
import { row } from "./vms.js";

const part = (id) => document.getElementById(id);
const state = new State();
const shown = { sites: new Map(), running: new Map(), batches: new Map(), "ended-batches": new Map(), ended: new Map(), vms: new Map() };
const MOST_ENDED = 200;

function say(text) {
  part("said").textContent = text;
}

function underWay(migration) {
  return !migration.outcome || (["succeeded", "unverified"].includes(migration.outcome) && migration.phase === "window");
}

function show(part_id, items, make) {
  arrange(part(part_id), items, shown[part_id], make);
  const empty = part(`${part_id}-empty`);
  if (empty) empty.hidden = items.length > 0;
}

function draw() {
  drawing = false;
  const migrations = state.all("migration").sort((a, b) => b.started_at - a.started_at);
  part("cluster").textContent = state.cluster.name;
  document.title = `${state.cluster.name} · NovaCron`;
  show("sites", [...state.all("node"), ...state.all("peer")], box);
  show("running", migrations.filter(underWay), (migration) => card(migration, act));
  show("ended", migrations.filter((migration) => !underWay(migration)).slice(0, MOST_ENDED), line);
  const batches = state.all("batch").sort((a, b) => b.started_at - a.started_at);
  part("batches-section").hidden = !batches.length;
  show("batches", batches.filter((batch) => !batch.outcome), (batch) => batchCard(batch, cancelBatch));
  show("ended-batches", batches.filter((batch) => batch.outcome).slice(0, MOST_ENDED), batchLine);
  show("vms", state.all("vm").sort((a, b) => a.name.localeCompare(b.name)), (vm) => row(vm, { nodeName, migrate }));
}

function nodeName(id) {
  return state.all("node").find((node) => node.id === id)?.name ?? "";
}

async function attempt(action, done) {
  try {
    await action();
    say(done);
  } catch (problem) {
    await confirm({ title: problem.message, text: problem.next ? `Next: ${problem.next}` : "", yes: "Understood" });
  }
}

const ACTIONS = {
  cancel: { title: "Cancel this migration?", text: "The VM runs on where it is.", yes: "Cancel it" },
  rollback: { title: "Roll this migration back?", text: "The VM comes back with everything that it has done since.", yes: "Roll back" },
};

async function act(migration, verb) {
  if (await confirm(ACTIONS[verb])) await attempt(() => ask(`/migrations/${migration.id}/${verb}`, { method: "POST" }), `${verb} was asked for`);
}

const CANCEL_BATCH = {
  title: "Cancel this batch?",
  text: "What is under way is given up, and no more begins; what has moved stays where it is.",
  yes: "Cancel it",
};

async function cancelBatch(batch) {
  if (await confirm(CANCEL_BATCH)) await attempt(() => ask(`/batches/${batch.id}/cancel`, { method: "POST" }), "cancel was asked for");
}

async function migrate(vm) {
  const nodes = state.all("node").filter((node) => node.id !== vm.node_id && node.state === "ready" && !node.drain).map((node) => `/${node.name}`);
  const targets = [...state.all("peer").map((peer) => peer.name), ...nodes];
  const text = targets.length ? "It goes on running while it moves." : "There is nowhere to go: join another cluster with novacron federation invite.";
  const to = await confirm({ title: `Migrate ${vm.name}`, text, yes: "Migrate", targets });
  if (to) await attempt(() => ask("/migrations", { method: "POST", body: { vm: vm.id, to } }), `the migration of ${vm.name} has begun`);
}

let drawing = false;

follow(state, {
  changed(change) {
    if (change?.kind === "migration" && change.value?.outcome) say(`migration of ${change.value.vm_name}: ${change.value.outcome}`);
    if (change?.kind === "batch" && change.value?.outcome) say(`batch to ${change.value.target_cluster}: ${change.value.outcome}`);
    if (!drawing) requestAnimationFrame(draw);
    drawing = true;
  },
  connected() {
    part("connection").textContent = "live";
    part("connection").className = "";
  },
  lost(problem) {
    part("connection").textContent = `not live: ${problem.message}; trying again`;
    part("connection").className = "lost";
  },
});
