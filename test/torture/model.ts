/**
 * The protocol of the lock file (`src/store/file/`) as a model small enough to be explored completely: one kernel call a
 * step, against a file system of one path. Every interleaving of the processes is visited, with a crash possible before
 * and after each step, and each state is checked for faults.
 *
 * A path can change back: behind a directory link that is rolled back lies the file that was there before. The number of an
 * inode is its place in the order of all files, which is by age. A clock can be set back, so a new file may get any place:
 * that makes many more states, so it is explored in worlds of their own.
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
  /** The path is behind a link between two directories, which changes at any moment. Each directory has its own file. */
  rollback?: true;
  /** A new file may get any place in the order of files. Else each comes after all before. */
  reuses?: true;
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
  "waits with any file locked": "a waiter keeps a deleted file locked, whatever file it waits for",
} as const;
export type Mutation = keyof typeof MUTATIONS;

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

/** Mutations in which a waiter keeps files whatever it waits for. */
const UNORDERED: ReadonlySet<Mutation | undefined> = new Set<Mutation>([
  "older files stay open",
  "waits with any file locked",
]);

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
  /** The inode in the other directory, and its owner. */
  other: number;
  otherOwner: number;
  processes: Process[];
  /** Open files that only a daemon of a command still has. */
  left: OpenFile[];
}

type Kind = "step" | "crash" | "abort" | "outsider";
/** Called with each next state, and the fault if that is one. */
type Visit = (state: State, label: string, kind: Kind, fault?: string) => void;

export const copy = (state: State): State => ({
  ...state,
  processes: state.processes.map(({ next, open }) => ({ next, open: open.map((file) => ({ ...file })) })),
  left: state.left.map((file) => ({ ...file })),
});

/** The inodes of a state, in the order of their numbers. */
function inodes(state: State): number[] {
  const all = new Set([state.path, state.other]);
  for (const { inode } of allOpen(state)) all.add(inode);
  all.delete(0);
  return [...all].sort((a, b) => a - b);
}

/** A state as text. Only the order of the inodes counts, so that equivalent states have the same text. */
export function encode(state: State): string {
  const ranks = new Map<number, string>([[0, "0"]]);
  for (const [i, inode] of inodes(state).entries()) ranks.set(inode, (i + 1).toString(36));
  const number = (inode: number) => ranks.get(inode)!;
  const files = (open: OpenFile[]) =>
    open.map(({ inode, lock }) => `${number(inode)}${"-se"[lock]}`).join("");
  let text = `${number(state.path)}${state.path && state.owner}${number(state.other)}${state.other && state.otherOwner}`;
  for (const { next, open } of state.processes) {
    text += `|${String.fromCharCode(65 + STEPS.indexOf(next))}${files(open)}`;
  }
  return state.left.length ? `${text}+${files(state.left).match(/../g)!.sort().join("")}` : text;
}

export function decode(text: string): State {
  const [body, left = ""] = text.split("+");
  const [paths, ...processes] = body!.split("|");
  const [path, owner, other, otherOwner] = [...paths!].map((digit) => Number.parseInt(digit, 36));
  const files = (pairs: string): OpenFile[] =>
    (pairs.match(/../g) ?? []).map((pair) => ({
      inode: Number.parseInt(pair[0]!, 36),
      lock: "-se".indexOf(pair[1]!) as 0 | 1 | 2,
    }));
  return {
    path: path!,
    owner: owner!,
    other: other!,
    otherOwner: otherOwner!,
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

/** The numbers that a new file may get: one in each gap between those in use. */
function newInodes({ reuses }: World, state: State): number[] {
  const gaps = [0, ...inodes(state)].map((inode) => inode + 0.5);
  return reuses ? gaps : gaps.slice(-1);
}

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
  // No call deletes a file by its inode: the step from look to unlink is not safe while a path changes.
  const removes = state.processes.some(({ next }) => next === "discard" || next === "unlink");
  if (world.rollback && !removes) {
    const { path, owner, other, otherOwner } = state;
    const after = { ...copy(state), path: other, owner: otherOwner, other: path, otherOwner: owner };
    visit(after, "the directory link changes", "outsider");
  }
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
    done("held", exclusionFault(world, after, i, role));
  };
  const again = () => {
    // A waiter keeps the last two deleted files locked until it has tried the current one.
    const keepsAll = broken === "older files stay open";
    if (role.does !== "wait" || (keepsAll && process.open.length > 2)) process.open = [];
    else if (!keepsAll) process.open = process.open.slice(-2);
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
      after.owner = user;
      for (const inode of newInodes(world, state)) {
        after.path = inode;
        process.open = [...state.processes[i]!.open];
        opened();
      }
      return;
    case "lock":
      if (broken !== "no flock") {
        if (conflicts(after, file, wanted)) {
          if (role.does === "try") return finish();
          // It waits with the last deleted file, if that comes before the current one.
          const before = process.open.slice(0, -1);
          const kept = before.slice(-1).filter(({ inode }) => inode < file.inode);
          const drops = kept.length < before.length;
          if (drops && !UNORDERED.has(broken)) {
            process.open = [...kept, file];
            return done("lock");
          }
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

function exclusionFault({ rollback }: World, state: State, i: number, role: Role): string | undefined {
  const { inode } = state.processes[i]!.open.at(-1)!;
  // In two directories there are two locks.
  const same = (process: Process) => !rollback || process.open.at(-1)!.inode === inode;
  const other = state.processes.findIndex((process, j) => j !== i && holds(process) && same(process));
  if (other < 0) return undefined;
  // The lock shows the holder's mode, except in a mutation that takes no lock.
  const shares = role.shared && state.processes[other]!.open.at(-1)!.lock === 1;
  return shares ? undefined : `${i} and ${other} hold the lock at once`;
}
