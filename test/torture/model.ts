/**
 * The protocol of the lock file (`src/store/file/`) as a model small enough to be explored completely: one kernel call a
 * step, against a file system of one path. Every interleaving of the processes is visited, with a crash possible before
 * and after each step, and each state is checked for faults.
 *
 * What the kernel does: a path names an inode or nothing. An open file description has an inode and its flock(2), which
 * ends with the last process that has the description. Converting a lock gives it up first. Blocked calls may be served
 * in any order. A sticky directory with `fs.protected_regular` refuses O_CREAT on another user's file, and its removal.
 */

/** What a process does, repeatedly. */
export interface Role {
  /** `status` inspects the lock by taking it for a moment. `free` waits until the lock is free. */
  does: "try" | "wait" | "status" | "free";
  shared?: true;
  /** Leaves the file in place. */
  keep?: true;
  /** Wraps a command, which inherits the open file and lives on when the wrapper is killed. */
  wraps?: true;
  /** The user that owns the files it creates. */
  user?: number;
}

export interface World {
  roles: Role[];
  /** An outsider deletes the file while no process holds the lock or is about to release it. */
  outsider?: true;
  /** The directory is sticky: a process cannot delete another user's file, nor open it with O_CREAT. */
  sticky?: true;
  /** Processes may die at any step. Default: true. */
  crashes?: false;
}

/** Ways to break the protocol. Exploring must find each of them. */
export const MUTATIONS = {
  "no flock": "the lock is not taken",
  "no inode check": "a lock of a deleted file counts",
  "inode check before flock": "the file is deleted between the check and the lock",
  "unlink after unlock": "the file is removed when another process may have it",
  "unlink without a check": "whatever file is at the path is removed",
  "shared unlinks without EX": "one of many readers removes the file that the others use",
  "O_CREAT without O_EXCL": "the kernel refuses it on another user's file",
  "new file over the old one": "created elsewhere and renamed to the path",
  "older files stay open":
    "a waiter that has the lock keeps the deleted files locked that it had acquired before",
  "close without unlock": "what the command left behind keeps the lock",
} as const;
export type Mutation = keyof typeof MUTATIONS;

/** How many deleted files a waiter acquires before it gives up. */
const DELETED_MAX = 2;

type Step =
  | "open"
  | "create"
  | "lock"
  | "check"
  | "discard"
  | "held"
  | "orphan"
  | "convert"
  | "look"
  | "unlink"
  | "unlock"
  | "probe shared"
  | "probe drop"
  | "probe exclusive";

const STEPS: Step[] = [
  "open",
  "create",
  "lock",
  "check",
  "discard",
  "held",
  "orphan",
  "convert",
  "look",
  "unlink",
  "unlock",
  "probe shared",
  "probe drop",
  "probe exclusive",
];

/** An open file description, open(2). */
interface OpenFile {
  inode: number;
  lock: 0 | 1 | 2; // none, LOCK_SH, LOCK_EX
}
interface Process {
  next: Step;
  open: OpenFile[]; // the newest last
}
export interface State {
  /** The inode at the path; 0 for none. */
  path: number;
  /** The user that owns the inode at the path. */
  owner: number;
  processes: Process[];
  /** Open files that only a daemon of a command still has. */
  left: OpenFile[];
}

type Kind = "step" | "crash" | "abort" | "outsider";
/** Called with each next state, and the fault if that is one. */
type Visit = (state: State, label: string, kind: Kind, fault?: string) => void;

export const copy = (state: State): State => ({
  path: state.path,
  owner: state.owner,
  processes: state.processes.map(({ next, open }) => ({ next, open: open.map((file) => ({ ...file })) })),
  left: state.left.map((file) => ({ ...file })),
});

/** A state as text. Inodes are numbered in order of appearance, so that equivalent states have the same text. */
export function encode(state: State): string {
  const numbers = new Map<number, number>([[0, 0]]);
  const number = (inode: number) => {
    let known = numbers.get(inode);
    if (known === undefined) {
      known = numbers.size;
      numbers.set(inode, known);
    }
    return known.toString(36);
  };
  const files = (open: OpenFile[]) =>
    open.map(({ inode, lock }) => `${number(inode)}${"-se"[lock]}`).join("");
  let text = `${number(state.path)}${state.path ? state.owner : 0}`;
  for (const { next, open } of state.processes) {
    text += `|${String.fromCharCode(65 + STEPS.indexOf(next))}${files(open)}`;
  }
  return state.left.length ? `${text}+${files(state.left).match(/../g)!.sort().join("")}` : text;
}

export function decode(text: string): State {
  const [body, left = ""] = text.split("+");
  const [path, ...processes] = body!.split("|");
  const files = (pairs: string): OpenFile[] =>
    (pairs.match(/../g) ?? []).map((pair) => ({
      inode: Number.parseInt(pair[0]!, 36),
      lock: "-se".indexOf(pair[1]!) as 0 | 1 | 2,
    }));
  return {
    path: Number.parseInt(path![0]!, 36),
    owner: Number(path![1]),
    processes: processes.map((process) => ({
      next: STEPS[process.charCodeAt(0) - 65]!,
      open: files(process.slice(1)),
    })),
    left: files(left),
  };
}

function* allOpen(state: State): Generator<OpenFile> {
  for (const { open } of state.processes) yield* open;
  yield* state.left;
}

const newInode = (state: State): number =>
  Math.max(state.path, ...[...allOpen(state)].map((f) => f.inode)) + 1;

/** Would flock(2) have to wait? */
function conflicts(state: State, mine: OpenFile, wanted: 1 | 2): boolean {
  for (const file of allOpen(state)) {
    if (file !== mine && file.inode === mine.inode && (file.lock === 2 || (file.lock && wanted === 2)))
      return true;
  }
  return false;
}

export const holds = ({ next }: Process): boolean => next === "held" || next === "orphan";
export const idle = ({ next, open }: Process): boolean => next === "open" && open.length === 0;

/** Visits every state that can come next. */
export function successors(world: World, broken: Mutation | undefined, state: State, visit: Visit): void {
  for (const i of world.roles.keys()) {
    take(world, i, broken, state, visit);
    const process = state.processes[i]!;
    if (world.crashes === false || idle(process)) continue;
    const after = copy(state);
    if (process.next === "orphan") continue; // its step is the end of its command
    if (process.next === "held" && world.roles[i]!.wraps) after.processes[i]!.next = "orphan";
    else after.processes[i] = { next: "open", open: [] };
    visit(after, `${i} is killed before ${process.next}`, "crash");
  }
  const inUse = state.processes.some(
    (process) =>
      (holds(process) || ["discard", "look", "unlink"].includes(process.next)) &&
      process.open.at(-1)!.inode === state.path,
  );
  if (world.outsider && state.path !== 0 && !inUse)
    visit({ ...copy(state), path: 0 }, "an outsider deletes the file", "outsider");
}

/** Makes the next call of one process. */
export function take(world: World, i: number, broken: Mutation | undefined, state: State, visit: Visit) {
  const role = world.roles[i]!;
  const after = copy(state);
  const process = after.processes[i]!;
  const file = process.open.at(-1)!;
  const user = role.user ?? 0;
  const wanted = role.shared ? 1 : 2;
  const done = (next: Step, fault?: string) => {
    process.next = next;
    visit(after, `${i}: ${state.processes[i]!.next}`, "step", fault);
  };
  const finish = (fault?: string) => {
    process.open = [];
    done("open", fault);
  };
  const opened = () => {
    process.open.push({ inode: after.path, lock: 0 });
    if (role.does === "status") return done("probe shared");
    done(broken === "inode check before flock" ? "check" : "lock");
  };
  const hold = () => {
    if (broken !== "older files stay open") process.open = [file];
    done("held", exclusionFault(after, i, role));
  };
  const again = () => {
    // A waiter keeps deleted files locked until it has the current one, but not without limit.
    if (role.does !== "wait" || process.open.length > DELETED_MAX) process.open = [];
    done("open");
  };
  /** Deletes the file at the path. */
  const remove = (next: () => void) => {
    const known = after.path === file.inode && !othersHold(after, i, file.inode);
    if (after.path !== 0 && !known) return finish("deletes another's file");
    after.path = 0;
    next();
  };
  const begin = () => done(broken === "unlink without a check" ? "unlink" : "look");

  switch (process.next) {
    case "open":
      if (after.path !== 0) return opened();
      return role.does === "status" || role.does === "free" ? undefined : done("create");
    case "create":
      if (after.path !== 0 && broken === "O_CREAT without O_EXCL") {
        return after.owner === user || !world.sticky
          ? opened()
          : finish("the kernel refuses O_CREAT on another user's file");
      }
      if (after.path !== 0 && broken !== "new file over the old one") return done("open");
      after.path = newInode(after);
      after.owner = user;
      return opened();
    case "lock":
      if (broken !== "no flock") {
        if (conflicts(after, file, wanted)) {
          if (role.does === "try") return finish();
          process.open = [];
          process.next = "open";
          return visit(after, `${i} gives up waiting`, "abort");
        }
        file.lock = wanted;
      }
      if (role.does === "free") return done("unlock");
      return broken === "inode check before flock" ? hold() : done("check");
    case "check":
      if (broken === "inode check before flock") {
        if (after.path === file.inode) return done("lock");
        process.open.pop();
        return done("open");
      }
      if (after.path !== file.inode && broken !== "no inode check") return again();
      // Left by a crash of another user's process: replaced by a file of this user, where that is permitted.
      return after.owner === user || role.shared || role.keep ? hold() : done("discard");
    case "discard":
      return world.sticky && after.owner !== user ? hold() : remove(again);
    case "orphan": // the command of a killed wrapper ends
      return finish();
    case "held":
      if (broken === "unlink after unlock") {
        file.lock = 0;
        return begin();
      }
      if (role.shared && broken !== "shared unlinks without EX") {
        file.lock = 0; // flock(2): a conversion gives the lock up first
        return done("convert");
      }
      return role.keep ? done("unlock") : begin();
    case "convert":
      if (conflicts(after, file, 2)) return done("unlock");
      file.lock = 2;
      return role.keep ? done("unlock") : begin();
    case "look":
      return done(after.path === file.inode ? "unlink" : "unlock");
    case "unlink":
      if (after.path === 0 || (world.sticky && after.owner !== user)) return done("unlock"); // ENOENT, EPERM
      return remove(() => done("unlock"));
    case "unlock":
      if (broken === "close without unlock" && role.wraps && file.lock) after.left = [file];
      if (broken !== "older files stay open") return finish();
      process.open.pop();
      return done("open");
    case "probe shared":
      if (conflicts(after, file, 1)) return finish();
      file.lock = 1;
      return done("probe drop");
    case "probe drop":
      file.lock = 0;
      return done("probe exclusive");
    case "probe exclusive":
      if (conflicts(after, file, 2)) return finish();
      file.lock = 2;
      return done("unlock");
  }
}

const othersHold = (state: State, i: number, inode: number): boolean =>
  state.processes.some((process, j) => j !== i && holds(process) && process.open.at(-1)!.inode === inode);

function exclusionFault(state: State, i: number, role: Role): string | undefined {
  const other = state.processes.findIndex((process, j) => j !== i && holds(process));
  if (other < 0) return undefined;
  // The lock shows the holder's mode, except in a mutation that takes no lock.
  const shares = role.shared && state.processes[other]!.open.at(-1)!.lock === 1;
  return shares ? undefined : `${i} and ${other} hold the lock at once`;
}
