/** What can be read off the source without running it: the imports of each module, its cycles, and lines that repeat. */
import { posix } from "node:path";
import ts from "typescript";

/** The text of each file, by its path. */
export type Sources = ReadonlyMap<string, string>;

export interface Import {
  /** The file that is imported, or the name of a package. */
  target: string;
  /** Loaded together with the importing file: not by `import()` or `require()`, and not erased as a type. */
  static: boolean;
}

const parse = (path: string, text: string) => ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);

/** Every import of a file: static, dynamic, of a type, `export … from`, `import("…").Type`, `require`. */
export function importsOf(path: string, text: string): Import[] {
  const imports: Import[] = [];
  const add = (specifier: ts.Node | undefined, isStatic: boolean) => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return;
    const { text } = specifier;
    const target = text.startsWith(".") ? posix.join(posix.dirname(path), text) : text;
    imports.push({ target, static: isStatic });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      add(node.moduleSpecifier, node.importClause?.phaseModifier !== ts.SyntaxKind.TypeKeyword);
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, !node.isTypeOnly);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, false);
    } else if (ts.isExternalModuleReference(node)) {
      add(node.expression, true);
    } else if (ts.isCallExpression(node)) {
      const { expression } = node;
      const loads =
        expression.kind === ts.SyntaxKind.ImportKeyword ||
        /^(require|require\.resolve|import\.meta\.require)$/.test(expression.getText());
      if (loads) add(node.arguments[0], false);
    }
    ts.forEachChild(node, visit);
  };
  visit(parse(path, text));
  return imports;
}

/** The file without its comments. */
export const withoutComments = (path: string, text: string): string =>
  ts.createPrinter({ removeComments: true }).printFile(parse(path, text));

/** The cycles among these files: of each knot of files that reach one another, a shortest cycle through its first. */
export function cyclesOf(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const seen = new Set<string>();
  for (const start of [...imports.keys()].sort()) {
    if (seen.has(start)) continue;
    const cycle = shortestCycle(start, imports);
    if (cycle === undefined) continue;
    cycles.push(cycle);
    for (const file of imports.keys()) {
      if (reaches(start, file, imports) && reaches(file, start, imports)) seen.add(file);
    }
  }
  return cycles;
}

/** Breadth first, so that the first way back to the start is a shortest one. */
function shortestCycle(start: string, imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const paths = [[start]];
  const visited = new Set<string>();
  for (const path of paths) {
    for (const next of imports.get(path.at(-1)!) ?? []) {
      if (next === start) return path;
      if (visited.has(next)) continue;
      visited.add(next);
      paths.push([...path, next]);
    }
  }
  return undefined;
}

function reaches(from: string, to: string, imports: ReadonlyMap<string, readonly string[]>): boolean {
  const found = new Set(imports.get(from));
  for (const file of found) for (const next of imports.get(file) ?? []) found.add(next);
  return found.has(to);
}

/** Where `size` lines stand a second time. Imports, comments, blank lines and lone punctuation do not count. */
export function repeatedLines(sources: Sources, size: number): string[] {
  const first = new Map<string, { file: string; index: number }>();
  const repeats: string[] = [];
  for (const [file, text] of sources) {
    const lines = linesOfCode(text);
    let end = 0; // of the last repeat: a longer one is reported once
    for (let index = 0; index + size <= lines.length; index++) {
      const block = lines.slice(index, index + size).join("\n");
      const before = first.get(block);
      if (before === undefined) first.set(block, { file, index });
      else if (index >= end && !(before.file === file && index < before.index + size)) {
        repeats.push(`${file} repeats ${before.file} from: ${lines[index]}`);
        end = index + size;
      }
    }
  }
  return repeats;
}

function linesOfCode(text: string): string[] {
  return text
    .replace(/^import\b[^;]*;/gm, "")
    .replace(/^\s*\/\*[\s\S]*?\*\//gm, "")
    .split("\n")
    .map((line) =>
      line
        .replace(/\s*\/\/ .*$/, "")
        .trim()
        .replace(/\s+/g, " "),
    )
    .filter((line) => /\w/.test(line) && !line.startsWith("//"));
}
