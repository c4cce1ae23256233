/** Writes the OPTIONS of docs/exclusive.1 from the definitions of the commands: `npm run manual`. */
import { type Arg, optionsOf, valueHint } from "../src/command/cli/define.ts";
import { loadCommands } from "../src/command/commands.ts";

const PAGE = `${import.meta.dir}/exclusive.1`;

/** Returns the page with the text between each command's markers made from its definition. */
export async function withOptions(page: string): Promise<string> {
  let text = page;
  for (const { meta, args } of await loadCommands()) {
    const options = optionsOf(args);
    if (options.length === 0) continue;
    const begin = `.\\" options of ${meta.name}: made by docs/manual.ts\n`;
    const end = `.\\" end of the options of ${meta.name}\n`;
    const [before, rest] = text.split(begin);
    const after = rest?.split(end)[1];
    if (before === undefined || after === undefined) throw new Error(`no markers: ${begin}${end}`);
    text = before + begin + options.map(entry).join("") + end + after;
  }
  return text;
}

/** A paragraph of man(7): the option, then its description and details. */
function entry([name, option]: [string, Arg]): string {
  const hint = valueHint(option);
  const letter = option.alias ? `\\fB\\-${option.alias}\\fR, ` : "";
  const value = hint === undefined ? "" : option.type === "enum" ? ` ${bold(hint)}` : ` \\fI${hint}\\fR`;
  const description = option.description ?? "";
  const text = [`${description[0]!.toUpperCase()}${description.slice(1)}.`, option.details ?? ""].join(" ");
  return `.TP\n${letter}\\fB\\-\\-${escaped(name)}\\fR${value}\n${sentences(text.trim())}\n`;
}

/** The choices of an enum, in bold between bars. */
const bold = (choices: string) =>
  choices
    .split("|")
    .map((choice) => `\\fB${escaped(choice)}\\fR`)
    .join("|");

/** A sentence a line, as man-pages(7) recommends; words in backquotes are bold. */
function sentences(text: string): string {
  return escaped(text)
    .replaceAll(/`([^`]+)`/g, "\\fB$1\\fR")
    .replaceAll("…", "...")
    .replaceAll(/([.:]) (?=[A-Z]|\\fB)/g, "$1\n");
}

/** A hyphen of an option or name, and no request at the beginning of a line. */
const escaped = (text: string) =>
  text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("'", "\\(aq");

if (import.meta.main) await Bun.write(PAGE, await withOptions(await Bun.file(PAGE).text()));
