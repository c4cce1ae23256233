/** The manual page as text, where there is no man(1): as much of man(7) as the page uses. */

const INDENT = 7;
/** Longer lines are hard to read. */
const WIDTH_MAX = 80;

/** Formats a page for a terminal of so many columns. */
export function plainText(page: string, columns: number): string {
  const text = new Page(Math.min(columns, WIDTH_MAX));
  for (const line of page.split("\n")) text.read(line);
  return text.end();
}

class Page {
  #out = "";
  #words: string[] = [];
  #indent = INDENT;
  /** The next line is the tag of a paragraph. */
  #tagged = false;
  /** An example, whose lines stay as they are. */
  #verbatim = false;

  constructor(private readonly width: number) {}

  read(line: string): void {
    const [, macro, rest = ""] = /^\.(\S+) ?(.*)$/.exec(line) ?? [];
    const fonts = /^[BIR]{1,2}$/.test(macro ?? "");
    if (macro === undefined || fonts) {
      this.#text(unescaped(macro === undefined ? line : joined(rest, macro.length > 1)));
      return;
    }
    if (macro === '\\"' || macro === "TH" || macro === "YS") return;
    this.#flush();
    if (macro === "SH" || macro === "SS") {
      this.#indent = INDENT;
      this.#out += `\n${macro === "SH" ? "" : "   "}${unescaped(joined(rest))}\n`;
    } else if (macro === "TP") {
      this.#indent = INDENT;
      this.#tagged = true;
    } else if (macro === "PP") {
      this.#indent = INDENT;
      this.#out += "\n";
    } else if (macro === "SY") this.#text(unescaped(joined(rest)));
    else if (macro === "EX") this.#verbatim = true;
    else if (macro === "EE") this.#verbatim = false;
  }

  end(): string {
    this.#flush();
    return this.#out.trimStart();
  }

  #text(text: string): void {
    if (this.#verbatim) {
      this.#out += `${" ".repeat(INDENT + 4)}${text}\n`;
    } else if (this.#tagged) {
      this.#out += `\n${" ".repeat(INDENT)}${text}\n`;
      this.#indent = 2 * INDENT;
      this.#tagged = false;
    } else this.#words.push(...text.split(" ").filter((word) => word !== ""));
  }

  #flush(): void {
    let line = "";
    const print = () => {
      if (line !== "") this.#out += `${" ".repeat(this.#indent)}${line}\n`;
    };
    for (const word of this.#words) {
      if (line !== "" && this.#indent + line.length + 1 + word.length > this.width) {
        print();
        line = word;
      } else line = line === "" ? word : `${line} ${word}`;
    }
    print();
    this.#words = [];
  }
}

/** The arguments of a macro, quoted or not; those of a macro with two fonts stand close together. */
function joined(rest: string, close = false): string {
  const args = [...rest.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? "");
  return args.join(close ? "" : " ");
}

const unescaped = (text: string): string =>
  text
    .replaceAll(/\\f[BIRP]|\\&/g, "")
    .replaceAll("\\(aq", "'")
    .replaceAll("\\-", "-")
    .replaceAll("\\e", "\\");
