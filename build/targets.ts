/** The binaries of a release, and what each package format calls the machine that they run on. */

export interface Target {
  /** The Bun that it is made with: fetched by Bun from the npm registry when first needed. */
  bun: Bun.Build.CompileTarget;
  /** As package.json has them: npm installs only the package that fits. */
  npm: { os: "linux" | "darwin"; cpu: "x64" | "arm64"; libc?: "glibc" | "musl" };
}

export const TARGETS = {
  "linux-x64": { bun: "bun-linux-x64-baseline", npm: { os: "linux", cpu: "x64", libc: "glibc" } },
  "linux-x64-musl": { bun: "bun-linux-x64-baseline-musl", npm: { os: "linux", cpu: "x64", libc: "musl" } },
  "linux-arm64": { bun: "bun-linux-arm64", npm: { os: "linux", cpu: "arm64", libc: "glibc" } },
  "linux-arm64-musl": { bun: "bun-linux-arm64-musl", npm: { os: "linux", cpu: "arm64", libc: "musl" } },
  "macos-x64": { bun: "bun-darwin-x64-baseline", npm: { os: "darwin", cpu: "x64" } },
  "macos-arm64": { bun: "bun-darwin-arm64", npm: { os: "darwin", cpu: "arm64" } },
} as const satisfies Record<string, Target>;

export type TargetName = keyof typeof TARGETS;
