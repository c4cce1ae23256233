/**
 * Writes what is published to npm: `exclusiveprocess`, with the library and the launcher of the command, and for each target
 * `@exclusiveprocess/<target>`, with its binary. The repository's own package.json does not name the latter: `npm install`
 * in a clone would ask the registry for versions that are not there yet.
 */
import { chmod, copyFile, cp, mkdir, rm } from "node:fs/promises";
import manifest from "../package.json";
import { TARGETS, type Target, type TargetName } from "./targets.ts";
import { linkOrCopy } from "./tree.ts";

const { name, version, description, license, homepage, repository, bugs } = manifest;

export const platformPackage = (target: TargetName): string => `@${name}/${target}`;

/**
 * @param out the directory that has the binaries, and gets `npm/`
 * @param lib what `build.ts --lib` made
 */
export async function buildNpm(out: string, targets: TargetName[], lib = "dist/lib"): Promise<void> {
  await rm(`${out}/npm`, { recursive: true, force: true });
  for (const target of targets) await writePlatformPackage(out, target);
  await writeMainPackage(`${out}/npm/${name}`, targets, lib);
}

async function writePlatformPackage(out: string, target: TargetName): Promise<void> {
  const dir = `${out}/npm/${target}`;
  const { os, cpu, libc }: Target["npm"] = TARGETS[target].npm;
  await mkdir(`${dir}/bin`, { recursive: true });
  await linkOrCopy(`${out}/exclusive-${target}`, `${dir}/bin/exclusive`);
  await chmod(`${dir}/bin/exclusive`, 0o755);
  await copyFile("LICENSE", `${dir}/LICENSE`);
  await Bun.write(
    `${dir}/README.md`,
    `# ${platformPackage(target)}\n\nThe binary of [${name}](${homepage}) for ${target}. Install \`${name}\`, which depends on it.\n`,
  );
  await writeJson(`${dir}/package.json`, {
    name: platformPackage(target),
    version,
    description: `The ${target} binary of ${name}.`,
    license,
    homepage,
    repository,
    bugs,
    os: [os],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
    files: ["bin"],
    preferUnplugged: true, // Yarn keeps packages in archives, where nothing can be executed
  });
}

async function writeMainPackage(dir: string, targets: TargetName[], lib: string): Promise<void> {
  const { private: _, scripts, devDependencies, allowScripts, typedocOptions, ...published } = manifest;
  await mkdir(dir, { recursive: true });
  for (const file of ["README.md", "CHANGELOG.md", "LICENSE"]) await copyFile(file, `${dir}/${file}`);
  await cp(lib, `${dir}/dist/lib`, { recursive: true });
  await writeJson(`${dir}/package.json`, {
    ...published,
    description,
    optionalDependencies: Object.fromEntries(targets.map((target) => [platformPackage(target), version])),
  });
}

const writeJson = (file: string, value: object) => Bun.write(file, `${JSON.stringify(value, null, 2)}\n`);
