/** `exclusive --version`: the version of the package, and the commit of the build where it is known. */

// Set by build.ts. The npm package reads the version from its package.json instead.
declare const BUILD_VERSION: string | undefined;
declare const BUILD_COMMIT: string | undefined;

export async function version(): Promise<string> {
  const commit = typeof BUILD_COMMIT === "undefined" ? "" : BUILD_COMMIT;
  const number = typeof BUILD_VERSION === "undefined" ? await packageVersion() : BUILD_VERSION;
  return `exclusive ${number}${commit ? ` (${commit})` : ""}`;
}

async function packageVersion(): Promise<string> {
  const file = Bun.resolveSync("exclusiveprocess/package.json", import.meta.dir);
  return (await Bun.file(file).json()).version;
}
