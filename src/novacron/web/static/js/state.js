// What is known of the cluster: resources by kind and id. Changes come in any number, and never make it older.

export const KINDS = { node: "/nodes", vm: "/vms", migration: "/migrations", batch: "/batches", peer: "/peers" };

export class State {
  constructor() {
    this.byKind = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, new Map()]));
    this.cluster = null;
  }

  replace(kind, items) {
    this.byKind[kind] = new Map(items.map((item) => [item.id, { value: item, version: item.resource_version ?? 0 }]));
  }

  // True when it says something new.
  apply({ kind, id, version, value }) {
    const known = this.byKind[kind];
    if (!known || version <= (known.get(id)?.version ?? 0)) return false;
    known.set(id, { value, version }); // without a value: gone, and remembered as gone
    return true;
  }

  all(kind) {
    return [...this.byKind[kind].values()].map((entry) => entry.value).filter(Boolean);
  }
}
