#!/bin/sh
":" /* # A shell script up to the end of this comment. To a JavaScript runtime what follows the comment is the whole program.
#
# The npm package's command. It becomes the binary of this machine, from the optional dependency that has it: exit status,
# signals, terminal and descriptors are then the binary's own. No "*" may be followed by "/" above the end of the comment.

fail() {
  printf 'exclusive: cannot run here: %s\n' "$1" >&2
  exit 71
}

self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self") || fail "no readlink(1) to follow $self"
  case $link in
    /*) self=$link ;;
    *) self=${self%/*}/$link ;;
  esac
done
here=$(CDPATH='' cd -P "${self%/*}" && pwd -P) || fail "$self is not to be found"

machine=$(uname -sm)
case $machine in
  'Linux x86_64') cpu=x64 glibc=/lib64/ld-linux-x86-64.so.2 musl=/lib/ld-musl-x86_64.so.1 ;;
  'Linux aarch64') cpu=arm64 glibc=/lib/ld-linux-aarch64.so.1 musl=/lib/ld-musl-aarch64.so.1 ;;
  'Darwin x86_64') targets='macos-x64' ;;
  'Darwin arm64') targets='macos-arm64 macos-x64' ;;
esac
if [ -n "${cpu-}" ]; then
  # Where both loaders are, the second one is a compatibility layer or a library for development.
  [ ! -e "$glibc" ] || targets=linux-$cpu
  if [ -e /etc/alpine-release ]; then
    targets="linux-$cpu-musl ${targets-}"
  elif [ -e "$musl" ]; then
    targets="${targets-} linux-$cpu-musl"
  fi
fi

# Without it the loader would end the binary with 127, which means that the wrapped command is not found.
needs_library() {
  case $1 in *-musl) ;; *) return 1 ;; esac
  [ -z "${LD_LIBRARY_PATH-}${LD_PRELOAD-}" ] && [ ! -e /usr/lib/libstdc++.so.6 ] && [ ! -e /lib/libstdc++.so.6 ]
}

# As Node looks for a package: in each node_modules on the way to the root.
dir=$here
while :; do
  for target in ${targets-}; do
    binary=$dir/node_modules/@exclusiveprocess/$target/bin/exclusive
    [ ! -x "$binary" ] || ! needs_library "$target" || fail 'libstdc++.so.6 is not installed: apk add libstdc++'
    [ ! -x "$binary" ] || exec "$binary" "$@"
  done
  [ -n "${bun-}" ] || [ ! -x "$dir/node_modules/.bin/bun" ] || bun=$dir/node_modules/.bin/bun
  [ -n "$dir" ] || break
  dir=${dir%/*}
done

bun=${bun-$(command -v bun)}
[ -z "$bun" ] || exec "$bun" "$here/command/main.js" "$@"
[ -n "${targets-}" ] || fail "there is no binary for $machine, and no Bun: install Bun 1.4.5 or later"
fail "the package @exclusiveprocess/${targets%% *} is not installed, and no Bun: install exclusiveprocess again, with its optional dependencies, or install Bun 1.4.5 or later"
*/
// For callers that pass this file to a runtime, as Yarn's Plug'n'Play does: there packages are found by `require` alone.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** The binary of this machine; undefined where its package is not installed. */
function findBinary() {
  const { resolve } = createRequire(import.meta.url);
  const target = `${{ darwin: "macos" }[process.platform] ?? process.platform}-${process.arch}`;
  const preferred = existsSync("/etc/alpine-release") ? ["-musl", ""] : ["", "-musl"];
  for (const libc of preferred) {
    try {
      return `${dirname(resolve(`@exclusiveprocess/${target}${libc}/package.json`))}/bin/exclusive`;
    } catch {} // it is not installed
  }
}

function fail(reason) {
  console.error(`exclusive: cannot run here: ${reason}`);
  process.exit(71);
}

const args = process.argv.slice(2);
const main = new URL("./command/main.js", import.meta.url);
const binary = findBinary();
if (binary === undefined && process.versions.bun !== undefined) await import(main.href);
else {
  const [file, ...argv] = binary === undefined ? ["bun", fileURLToPath(main), ...args] : [binary, ...args];
  const child = spawn(file, argv, { stdio: "inherit" });
  child.on("error", ({ message }) =>
    fail(
      binary === undefined
        ? `there is no binary for ${process.platform} ${process.arch}, and no Bun: install exclusiveprocess again, with its optional dependencies, or install Bun 1.4.5 or later`
        : message,
    ),
  );
  // From a terminal they reach the whole process group; sent to this process alone they must be passed on.
  const ofTerminal = process.stdin.isTTY ? ["SIGINT", "SIGQUIT"] : [];
  const forwarded = ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGCONT"];
  for (const signal of forwarded) process.on(signal, () => ofTerminal.includes(signal) || child.kill(signal));
  child.on("exit", (status, signal) => {
    if (signal === null) process.exit(status);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    setTimeout(() => process.exit(128 + constants.signals[signal]), 1000); // a signal that does not end this process
  });
}
