/**
 * Checks without the lock whether two processes were inside at once. Each process appends a line to one log when it
 * enters and leaves: one write(2) with O_APPEND a line, so the lines stand in the order of the events. An exclusive
 * holder also makes a marker, a symbolic link to its own id, which can exist only once.
 *
 *     E LOCK MODE ID     ID has the lock, and is inside; MODE is x, s, or the number of slots
 *     L LOCK ID          ID is about to release it
 *     M LOCK ID OTHER    ID is inside, and found OTHER's marker
 *     K ID               ID is about to be killed: from now on it may have ended
 */
import { mkdirSync, openSync, readFileSync, readlinkSync, symlinkSync, unlinkSync, writeSync } from "node:fs";

/** Where the log and the markers are. */
export class Scene {
  constructor(readonly dir: string) {
    mkdirSync(dir, { recursive: true });
  }
  get log(): string {
    return `${this.dir}/log`;
  }
  marker(lock: string): string {
    return `${this.dir}/marker.${lock}`;
  }
  /** Writes the log from JavaScript. */
  recorder(): Recorder {
    return new Recorder(this, openSync(this.log, "a"));
  }
}

export type SectionMode = "x" | "s" | number;

export class Recorder {
  constructor(
    readonly scene: Scene,
    readonly fd: number,
  ) {}
  enter(lock: string, mode: SectionMode, id: string): void {
    if (mode === "x") this.#mark(lock, id);
    writeSync(this.fd, `E ${lock} ${mode} ${id}\n`);
  }
  leave(lock: string, mode: SectionMode, id: string): void {
    writeSync(this.fd, `L ${lock} ${id}\n`);
    if (mode === "x") unlinkSync(this.scene.marker(lock));
  }
  kill(id: string): void {
    writeSync(this.fd, `K ${id}\n`);
  }
  #mark(lock: string, id: string): void {
    const marker = this.scene.marker(lock);
    for (;;) {
      try {
        symlinkSync(id, marker);
        return;
      } catch {
        try {
          writeSync(this.fd, `M ${lock} ${id} ${readlinkSync(marker)}\n`);
          unlinkSync(marker);
        } catch {} // it has been removed meanwhile
      }
    }
  }
}

/**
 * Writes the log from a shell: `sh -c SECTION sh DIR LOCK MODE ID SECONDS`. It is inside for SECONDS.
 */
export const SECTION = `
cd "$1" || exit 99
mark() {
  until ln -s "$3" "marker.$1" 2>/dev/null; do
    [ -e log ] || exit 99
    other=$(readlink "marker.$1") && echo "M $1 $3 $other" >>log && rm -f "marker.$1"
  done
}
[ "$3" = x ] && mark "$2" "$3" "$4"
echo "E $2 $3 $4" >>log
[ "$5" = 0 ] || sleep "$5"
echo "L $2 $4" >>log
[ "$3" = x ] && rm -f "marker.$2"
exit 0
`;

export interface Verdict {
  acquisitions: number;
  violations: string[];
}

/** The number of words in a line. */
const FIELDS: Record<string, number> = { E: 4, L: 3, M: 4, K: 2 };

/** Reads a log from its beginning. */
export function check(log: string): Verdict {
  const inside = new Map<string, Map<string, SectionMode>>();
  const killed = new Set<string>();
  /** Killed processes that must have ended, because another one has entered. */
  const dead = new Set<string>();
  const violations: string[] = [];
  let acquisitions = 0;

  const section = (lock: string) => {
    let found = inside.get(lock);
    if (found === undefined) {
      found = new Map();
      inside.set(lock, found);
    }
    return found;
  };
  for (const [i, line] of log.split("\n").entries()) {
    const [event, lock = "", ...rest] = line.split(" ");
    const wrong = (what: string) => violations.push(`line ${i + 1}: ${line}: ${what}`);
    if (line.split(" ").length !== (FIELDS[event!] ?? 1)) {
      wrong("not a line of this log");
    } else if (event === "E") {
      const mode = rest[0] === "x" || rest[0] === "s" ? rest[0] : Number(rest[0]);
      const id = rest[1]!;
      const others = section(lock);
      acquisitions++;
      if (dead.has(id)) wrong("was dead");
      if (typeof mode === "number") {
        // Which of the killed processes have ended is unknown: those that were not killed must leave a slot.
        const living = [...others.keys()].filter((other) => !killed.has(other));
        if (living.length >= mode) wrong(`${living.join(", ")} are inside`);
      } else {
        for (const [other, how] of others) {
          if (mode === "s" && how === "s") continue;
          if (killed.has(other)) dead.add(other);
          else wrong(`${other} is inside (${how})`);
          others.delete(other);
        }
      }
      others.set(id, mode);
    } else if (event === "L") {
      const id = rest[0]!;
      if (!section(lock).delete(id)) wrong(dead.has(id) ? "was dead" : "was not inside");
    } else if (event === "M") {
      if (!killed.has(rest[1]!)) wrong("the marker of a process that was not killed");
    } else if (event === "K") {
      killed.add(lock);
    } else if (line !== "") {
      wrong("not a line of this log");
    }
  }
  return { acquisitions, violations };
}

export const checkFile = (scene: Scene): Verdict => check(readFileSync(scene.log, "utf8"));
