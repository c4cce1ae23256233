/**
 * The processes of a command: to signal every one of them, and to see that they have ended.
 *
 * They are known by what they cannot all shed at once:
 *
 * | a process belongs to the command because it                    | found after `setsid`, `env -i`, a second fork | not found                            |
 * |----------------------------------------------------------------|-----------------------------------------------|--------------------------------------|
 * | descends from the command, or from its wrapper, which adopts    | as long as the wrapper lives                  | once both are gone                   |
 * | has inherited the lock's open file, or the marker of a store   | yes                                           | if it closed all of its descriptors  |
 * | was once seen here                                             | yes                                           |                                      |
 * | is in a session or process group that a known member leads     | if it has not made its own                    |                                      |
 * | has the variables of this run, in a store unique by the token  | if it kept them                               | with `env -i`                        |
 */
import { ProcessHandle } from "../../os/process-handle.ts";
import {
  birthTime,
  hasVariables,
  isStopped,
  livingProcesses,
  type Relations,
  startedBefore,
  startTime,
} from "../../os/processes.ts";
import { SIG } from "../../os/signals.ts";

/** Environment variables unique to this run. Descendants inherit them, so they identify orphaned children too. */
export type Mark = Record<string, string>;

/** How the processes of a command are known. */
export interface TreeRoots {
  /** Its process; undefined where it is not known, or there is none. */
  command?: number | undefined;
  /** The process that runs the command and adopts what it leaves. It is not part of the tree itself. */
  wrapper?: number | undefined;
  /** Are all that descend from the wrapper part of it? They are by default. */
  descends?: boolean;
  /** Other processes that are not part of it. */
  except?: readonly (number | undefined)[];
  /** Those that have an open file of the command. */
  heirs?: () => number[];
  mark?: Mark;
}

type Processes = ReadonlyMap<number, Relations>;

/** The processes of a command. */
export class ProcessTree {
  /** Start times by pid: a pid may have been given to another process since. */
  readonly #known = new Map<number, string>();
  /** Pids of all that were ever known: the kernel gives none of them away while it names a session or a group. */
  readonly #leaders = new Set<number>();
  readonly #wrapperStarted: string | undefined;
  /** No process of the command is older. What a program left that the wrapper was executed in place of, is. */
  #begun: string | undefined;

  constructor(private readonly roots: TreeRoots) {
    this.#wrapperStarted = roots.wrapper === undefined ? undefined : startTime(roots.wrapper);
    if (roots.command !== undefined) this.setCommand(roots.command);
  }

  /** Adds the command, once it is known. */
  setCommand(pid: number): void {
    this.#begun = birthTime(pid);
    if (this.#begun !== undefined) this.#add(pid, this.#begun);
  }

  /**
   * Sends a signal to each of them; 0 sends none.
   * @returns those that were alive before, and those of them that we may not signal
   */
  signal(signal: number): { alive: number[]; refused: number[] } {
    const alive = this.living();
    return { alive, refused: this.send(alive, signal) };
  }

  /** Sends a signal to these, which `living` has returned. @returns those that we may not signal */
  send(pids: readonly number[], signal: number): number[] {
    const refused: number[] = [];
    for (const pid of pids) {
      using handle = new ProcessHandle(pid);
      if (startTime(pid) !== this.#known.get(pid)) continue; // it has ended, and another process may have the pid
      if (handle.send(signal) === "EPERM") refused.push(pid);
      if (signal !== 0 && signal !== SIG.KILL && isStopped(pid)) handle.send(SIG.CONT); // else it is taken much later
    }
    return refused;
  }

  /** Those of the last look that still live. Looks at no other process. */
  known(): number[] {
    return [...this.#known].filter(([pid, started]) => startTime(pid) === started).map(([pid]) => pid);
  }

  /** The pids of the processes that live. Looks at every process of the machine. */
  living(): number[] {
    const processes = livingProcesses();
    for (const [pid, started] of this.#known)
      if (processes.get(pid)?.started !== started) this.#known.delete(pid);
    const { heirs, mark } = this.roots;
    for (const pid of heirs?.() ?? []) this.#addIfLiving(pid, processes);
    if (mark !== undefined) {
      const variables = Object.entries(mark).map(([key, value]) => `${key}=${value}`);
      for (const pid of processes.keys())
        if (!this.#isOutside(pid) && !this.#known.has(pid) && hasVariables(pid, variables))
          this.#addIfLiving(pid, processes);
    }
    while (this.#addRelatives(processes));
    return [...this.#known.keys()];
  }

  /** Adds the children of members, and what is in their sessions and groups. @returns whether there were any */
  #addRelatives(processes: Processes): boolean {
    const before = this.#known.size;
    const { wrapper = 0, descends = true } = this.roots;
    const wrapperLives = descends && processes.get(wrapper)?.started === this.#wrapperStarted;
    for (const [pid, { parent, session, group, started }] of processes) {
      if (this.#known.has(pid) || this.#isOutside(pid)) continue;
      const related =
        this.#known.has(parent) ||
        (wrapperLives && parent === wrapper) ||
        this.#leaders.has(session) ||
        this.#leaders.has(group);
      if (related && !(this.#begun !== undefined && startedBefore(started, this.#begun)))
        this.#add(pid, started);
    }
    return this.#known.size > before;
  }

  #isOutside(pid: number): boolean {
    const { wrapper, except = [] } = this.roots;
    return pid === process.pid || pid === wrapper || except.includes(pid);
  }

  #addIfLiving(pid: number, processes: Processes): void {
    const found = processes.get(pid);
    if (found !== undefined && !this.#isOutside(pid)) this.#add(pid, found.started);
  }

  #add(pid: number, started: string): void {
    this.#known.set(pid, started);
    this.#leaders.add(pid);
  }
}
