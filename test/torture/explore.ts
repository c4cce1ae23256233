/** Explores every state that a world of the model can reach. */
import {
  copy,
  decode,
  encode,
  holds,
  idle,
  type Mutation,
  type State,
  successors,
  take,
  type World,
} from "./model.ts";

export interface Finding {
  fault: string;
  /** What happened, from the start. */
  trace: string[];
}
export interface Exploration {
  states: number;
  finding?: Finding;
}

const beginning = (world: World): State => ({
  path: 0,
  owner: 0,
  other: 0,
  otherOwner: 0,
  processes: world.roles.map(() => ({ next: "open", open: [] })),
  left: [],
});

/** Explores all states of a world, and stops at the first fault. */
export function explore(world: World, broken?: Mutation): Exploration {
  const start = encode(beginning(world));
  const numbers = new Map<string, number>([[start, 0]]);
  const states = [start];
  const parents = [0];
  const labels = ["start"];
  // Edges that are neither a crash nor an abort: along them every state must reach one where all work is done.
  const from: number[] = [];
  const to: number[] = [];
  let finding: Finding | undefined;
  const found = (fault: string, state: number, last?: string) => {
    const trace = last === undefined ? [] : [last];
    for (let at = state; at !== 0; at = parents[at]!) trace.unshift(labels[at]!);
    finding ??= { fault, trace };
  };

  for (let at = 0; at < states.length && finding === undefined; at++) {
    const state = decode(states[at]!);
    successors(world, broken, state, (after, label, kind, fault) => {
      if (fault !== undefined) return found(fault, at, label);
      const text = encode(after);
      let number = numbers.get(text);
      if (number === undefined) {
        number = states.length;
        numbers.set(text, number);
        states.push(text);
        parents.push(at);
        labels.push(label);
      }
      if (kind === "step") {
        from.push(at);
        to.push(number);
      }
    });
    if (finding === undefined && !freshProcessSucceeds(world, state, broken))
      found("a fresh process does not get the lock though all others are gone", at);
  }
  if (finding === undefined) {
    const stuck = stuckState(states, from, to);
    if (stuck !== undefined) found("a process waits forever", stuck);
  }
  return finding === undefined ? { states: states.length } : { states: states.length, finding };
}

/** When all processes have ended, does a new one get the lock at its first try? */
function freshProcessSucceeds({ sticky }: World, state: State, broken: Mutation | undefined): boolean {
  const world: World = { roles: [{ does: "try", user: 9 }], ...(sticky && { sticky }) };
  let now: State = { ...copy(state), processes: [{ next: "open", open: [] }] };
  for (let steps = 0; steps < 20; steps++) {
    let after: State | undefined;
    take(world, 0, broken, now, (state) => {
      after = state;
    });
    if (after === undefined) return false;
    if (now.processes[0]!.next === "lock" && idle(after.processes[0]!)) return false; // refused
    if (holds(after.processes[0]!)) return true;
    now = after;
  }
  return false;
}

/** A state from which no step leads to a state where all processes are idle. */
function stuckState(states: string[], from: number[], to: number[]): number | undefined {
  // The edges grouped by their target, in two arrays.
  const first = new Int32Array(states.length + 1);
  for (const state of to) first[state + 1]!++;
  for (let i = 0; i < states.length; i++) first[i + 1]! += first[i]!;
  const sources = new Int32Array(to.length);
  const fill = first.slice();
  for (const [edge, state] of to.entries()) sources[fill[state]!++] = from[edge]!;

  const ends = new Uint8Array(states.length);
  const todo: number[] = [];
  for (const [i, text] of states.entries()) {
    if (!decode(text).processes.every(idle)) continue;
    ends[i] = 1;
    todo.push(i);
  }
  for (let state = todo.pop(); state !== undefined; state = todo.pop()) {
    for (let edge = first[state]!; edge < first[state + 1]!; edge++) {
      const source = sources[edge]!;
      if (ends[source]) continue;
      ends[source] = 1;
      todo.push(source);
    }
  }
  const stuck = ends.indexOf(0);
  return stuck < 0 ? undefined : stuck;
}

/** How many states of a world have a file though all processes are idle. */
export function leftovers(world: World): number {
  let count = 0;
  const seen = new Set<string>();
  const todo = [encode(beginning(world))];
  for (let text = todo.pop(); text !== undefined; text = todo.pop()) {
    if (seen.has(text)) continue;
    seen.add(text);
    const state = decode(text);
    if (state.path !== 0 && state.processes.every(idle)) count++;
    successors(world, undefined, state, (after) => todo.push(encode(after)));
  }
  return count;
}
