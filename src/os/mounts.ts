/** The file system that a directory is on: statfs(2), proc_pid_mountinfo(5). */

import { systemError } from "./errors.ts";
import { ACCESS, access, close, fileSystemType, O, open, readText } from "./files.ts";
import { address, libc, linux } from "./libc.ts";

/** A line of /proc/self/mountinfo. */
export interface Mount {
  type: string;
  /** Options of the file system. */
  options: string[];
}

/**
 * Is the file system itself read-only, for everybody? A mount that is read-only in this process's mount namespace, as
 * systemd's `ProtectSystem=` makes it, does not count: proc_pid_mountinfo(5).
 */
export function isReadOnly(directory: string): boolean {
  if (access(directory, ACCESS.W) !== "EROFS") return false; // asked after the permissions, so EROFS is rare
  return mountedFileSystem(directory)?.mount?.options.includes("ro") ?? true;
}

/** What the OS says of a file system. */
export interface MountedFileSystem {
  /** `f_type` of statfs(2), on Linux. */
  magic?: number;
  mount?: Mount | undefined;
  /** On macOS: the type's name, and whether it is on this machine. */
  type?: string;
  local?: boolean;
}

/**
 * @param directory a directory that exists
 * @returns undefined where the OS does not say
 * @throws {LockFileError} when it cannot be opened
 */
export function mountedFileSystem(directory: string): MountedFileSystem | undefined {
  const fd = open(directory, O.RDONLY | O.NONBLOCK);
  if (typeof fd === "string") throw systemError("open", directory, fd);
  try {
    if (!linux) return ofMacOS(fd);
    const magic = fileSystemType(directory);
    return typeof magic === "string" ? undefined : { magic: Number(magic), mount: mountOf(fd) };
  } finally {
    close(fd);
  }
}

/** The mount that an open file is in; undefined where there is no /proc. */
function mountOf(fd: number): Mount | undefined {
  const id = /^mnt_id:\s+(\d+)/m.exec(readText(`/proc/self/fdinfo/${fd}`) ?? "")?.[1];
  const lines = (readText("/proc/self/mountinfo") ?? "").split("\n");
  const [, rest] = lines.find((line) => line.startsWith(`${id} `))?.split(" - ") ?? [];
  const [type, , options] = rest?.split(" ") ?? [];
  return type === undefined ? undefined : { type, options: options?.split(",") ?? [] };
}

const MNT_LOCAL = 0x1000;

/** node:fs leaves out what is needed of macOS's `struct statfs`: the flags and the type's name. */
function ofMacOS(fd: number): MountedFileSystem | undefined {
  const name = process.arch === "arm64" ? "fstatfs" : "fstatfs$INODE64";
  const bytes = new Uint8Array(4096);
  const fstatfs = libc({ [name]: { args: ["i32", "ptr"], returns: "i32" } })[name]!;
  if (fstatfs(fd, address(bytes)) < 0) return undefined;
  const type = bytes.subarray(72, 72 + 16);
  const flags = new DataView(bytes.buffer).getUint32(64, true);
  return {
    type: new TextDecoder().decode(type.subarray(0, type.indexOf(0))),
    local: (flags & MNT_LOCAL) !== 0,
  };
}
