/** Writes docs/contract.txt, what docs/stability.md promises to keep: `bun run contract`, after a build. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import ts from "typescript";
import { type Arg, operandsOf, optionsOf, valueHint } from "../src/command/cli/define.ts";
import { EXIT } from "../src/command/cli/exit-status.ts";
import { loadCommands } from "../src/command/commands.ts";

const ROOT = `${import.meta.dir}/..`;
const FILE = `${import.meta.dir}/contract.txt`;

/** Every line of the contract. */
export async function contract(): Promise<string> {
  const sections: Record<string, string[]> = {
    "Commands and options": await commands(),
    "Exit statuses": Object.entries(EXIT).map(([name, status]) => `${status} ${name}`),
    "Environment variables": environment(),
    "Fields of --json, at the top": jsonFields(),
    ...types(),
  };
  return Object.entries(sections)
    .map(([title, lines]) => `# ${title}\n${lines.join("\n")}\n`)
    .join("\n");
}

async function commands(): Promise<string[]> {
  return (await loadCommands()).flatMap(({ meta, args }) => [
    ["exclusive", meta.name, ...operandsOf(args)].join(" "),
    ...optionsOf(args).map((option) => `  ${optionLine(option)}`),
  ]);
}

function optionLine([name, option]: [string, Arg]): string {
  const letters = [option.alias ?? []].flat().map((letter) => `-${letter}, `);
  return [`${letters.join("")}--${name}`, valueHint(option) ?? ""].join(" ").trimEnd();
}

/** Those that a user sets, and those that a command gets. */
function environment(): string[] {
  const names = new Set<string>();
  for (const file of new Bun.Glob("src/**/*.ts").scanSync(ROOT)) {
    for (const [name] of readFileSync(`${ROOT}/${file}`, "utf8").matchAll(/\bEXCLUSIVE_[A-Z_]+\b/g))
      names.add(name);
  }
  return [...names].sort();
}

/** As the binary prints them for a lock that is held by a command, with a log file. */
function jsonFields(): string[] {
  const dir = mkdtempSync(`${tmpdir()}/exclusive-contract-`);
  const log = `${dir}/log`;
  const run = (...args: string[]) =>
    Bun.spawnSync([`${ROOT}/dist/exclusive`, ...args], {
      env: { ...process.env, EXCLUSIVE_DIR: dir },
      stdin: "ignore",
    }).stdout.toString();
  const fieldsOf = (...args: string[]) => {
    const value = JSON.parse(run(...args));
    const fields = Object.keys(Array.isArray(value) ? value[0] : value);
    return `exclusive ${args.map((arg) => (arg === log ? "FILE" : arg)).join(" ")}: ${fields.sort().join(" ")}`;
  };
  try {
    run("run", "--log-file", log, "--label", "text", "past", "--", "true");
    run("hold", "held", "--for", "1h", "--label", "text");
    return [
      fieldsOf("status", "held", "--json"),
      fieldsOf("list", "--json"),
      fieldsOf("path", "held", "--json"),
      fieldsOf("wait", "past", "--json"),
      fieldsOf("history", "past", "--log-file", log, "--json"),
      fieldsOf("history", "--log-file", log, "--json"),
      fieldsOf("doctor", "--json"),
      fieldsOf("doctor", "--self", "--json"),
      fieldsOf("stop", "held", "--json"),
    ];
  } finally {
    run("stop", "held");
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The library, the types of JSON among it, and the record in a lock file, as TypeScript sees them. */
function types(): Record<string, string[]> {
  const files = [`${ROOT}/src/index.ts`, `${ROOT}/src/holder.ts`];
  const { config } = ts.readConfigFile(`${ROOT}/tsconfig.json`, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const program = ts.createProgram(files, options);
  const checker = program.getTypeChecker();
  const print = (type: ts.Type) =>
    checker.typeToString(
      type,
      undefined,
      ts.TypeFormatFlags.NoTruncation | ts.TypeFormatFlags.UseAliasDefinedOutsideCurrentScope,
    );

  const isPublic = (symbol: ts.Symbol): boolean =>
    !/#|^__(?!@)/.test(symbol.name) &&
    (symbol.declarations ?? []).every(
      (declaration) =>
        !(
          ts.getCombinedModifierFlags(declaration) &
          (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)
        ) && !ts.getJSDocTags(declaration).some(({ tagName }) => tagName.text === "internal"),
    );

  /** A line for each member that is declared here, not by JavaScript itself. */
  function members(type: ts.Type): string[] {
    if (type.isUnion() && type.types.every((part) => part.flags & ts.TypeFlags.Object))
      return type.types.map((part) => `| ${members(part).join("; ")}`);
    return type
      .getProperties()
      .filter((member) => isPublic(member) && ours(member))
      .map((member) => {
        const optional = member.flags & ts.SymbolFlags.Optional ? "?" : "";
        return `${memberName(member)}${optional}: ${print(checker.getTypeOfSymbol(member))}`;
      })
      .sort();
  }
  const memberName = ({ name }: ts.Symbol) => name.replace(/^__@(\w+?)@?\d*$/, "[Symbol.$1]");
  const ours = (symbol: ts.Symbol) =>
    (symbol.declarations ?? []).some((declaration) => declaration.getSourceFile().fileName.includes("/src/"));

  /** The fields of each event, those that it shares with others included. */
  const eventLines = (type: ts.Type) =>
    type
      .getProperties()
      .map((event) => `${event.name}: ${members(checker.getTypeOfSymbol(event)).join("; ")}`)
      .sort();

  function describe(symbol: ts.Symbol): string[] {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    const declared = checker.getDeclaredTypeOfSymbol(target);
    if (target.flags & ts.SymbolFlags.Class) {
      const constructors = checker.getTypeOfSymbol(target).getConstructSignatures();
      const news = constructors.map((signature) => `new ${checker.signatureToString(signature)}`);
      return [`class ${symbol.name}`, ...[...new Set(news), ...members(declared)].map((line) => `  ${line}`)];
    }
    if (target.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias)) {
      const lines = symbol.name === "EventFields" ? eventLines(declared) : members(declared);
      const isObject = target.flags & ts.SymbolFlags.Interface || lines.length > 0;
      return isObject && lines.length > 0
        ? [`type ${symbol.name}`, ...lines.map((line) => `  ${line}`)]
        : [
            `type ${symbol.name}`,
            `  ${checker.typeToString(declared, undefined, ts.TypeFormatFlags.InTypeAlias | ts.TypeFormatFlags.NoTruncation)}`,
          ];
    }
    return [`${symbol.name}: ${print(checker.getTypeOfSymbol(target))}`];
  }

  const exportsOf = (file: string) =>
    checker
      .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    "The record: the second line of a lock file": exportsOf(files[1]!)
      .filter(({ name }) => name === "HolderRecord")
      .flatMap(describe),
    "The library, and the types of JSON": exportsOf(files[0]!).flatMap(describe),
  };
}

if (import.meta.main) await Bun.write(FILE, await contract());
