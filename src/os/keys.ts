/** Keys typed on our terminal, read one at a time instead of by lines: termios(3). */
import { close, O, open, readNow } from "./files.ts";
import { address, type CFunction, libc, linux } from "./libc.ts";
import { inForeground } from "./terminal.ts";

/** `c_lflag` in struct termios, where it stands there, and its bits for input by lines and for echo. */
const LOCAL_FLAGS = linux ? 12 : 24;
const ICANON = linux ? 0x2 : 0x100;
const ECHO = 0x8;
const TCSADRAIN = 1;
const TERMIOS_SIZE = 128; // of 60 bytes on Linux, 72 on macOS

/** Until disposed of, keys arrive as they are typed, and are not echoed. Those that send signals still do. */
export class Keys implements Disposable {
  readonly #terminal = open("/dev/tty", O.RDONLY | O.NONBLOCK | O.NOCTTY);
  readonly #c: Record<"tcgetattr" | "tcsetattr", CFunction> = libc({
    tcgetattr: { args: ["i32", "ptr"], returns: "i32" },
    tcsetattr: { args: ["i32", "i32", "ptr"], returns: "i32" },
  });
  /** The terminal's settings before ours; undefined while ours are not set. */
  #before: Uint8Array | undefined;

  /** What was typed since the last call. In the background the terminal is another job's: nothing, and no setting. */
  take(): string {
    if (typeof this.#terminal !== "number" || !inForeground()) return "";
    if (this.#before === undefined) this.#set(this.#terminal);
    return readNow(this.#terminal);
  }

  #set(terminal: number): void {
    const before = new Uint8Array(TERMIOS_SIZE);
    if (this.#c.tcgetattr(terminal, address(before)) !== 0) return;
    this.#before = before;
    const ours = before.slice();
    const view = new DataView(ours.buffer);
    view.setUint32(LOCAL_FLAGS, view.getUint32(LOCAL_FLAGS, true) & ~(ICANON | ECHO), true);
    this.#c.tcsetattr(terminal, TCSADRAIN, address(ours));
  }

  /** Gives the terminal its settings back, as before a stop. The next `take` sets ours again. */
  restore(): void {
    if (this.#before !== undefined && typeof this.#terminal === "number" && inForeground())
      this.#c.tcsetattr(this.#terminal, TCSADRAIN, address(this.#before));
    this.#before = undefined;
  }

  [Symbol.dispose](): void {
    this.restore();
    if (typeof this.#terminal === "number") close(this.#terminal);
  }
}
