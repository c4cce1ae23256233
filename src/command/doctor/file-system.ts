/** Which file system a directory is on, and whether that is one of this machine: statfs(2), proc_pid_mountinfo(5). */
import { LockFileError, printable } from "../../errors.ts";
import { address, checked, close, errorName, errorText, libc, O, open, readText } from "../../os/libc.ts";

const linux = process.platform === "linux";

/** What is known of a file system. */
export interface FileSystem {
  /** As mount(8) has it: `ext4`, `nfs4`, `fuse.sshfs`. */
  type: string;
  /** Is it on this machine alone? Undefined where nothing says so. */
  local?: boolean | undefined;
  /** What else an operator should know. */
  advice?: string | undefined;
}

/** Numbers of `f_type`, from statfs(2) and linux/magic.h. */
const LOCAL: Record<number, string> = {
  61267: "ext4",
  1481003842: "xfs",
  2435016766: "btrfs",
  16914836: "tmpfs",
  2240043254: "ramfs",
  2035054128: "overlay",
  801189825: "zfs",
  4076150800: "f2fs",
  3393526350: "bcachefs",
  827541066: "jfs",
  1382369651: "reiserfs",
  19780: "vfat",
  538032816: "exfat",
  1936094318: "ntfs3",
  16964: "hfs",
  18475: "hfsplus",
  13364: "nilfs2",
  61791: "ecryptfs",
};

const NETWORK: Record<number, string> = {
  26985: "nfs",
  20859: "smb",
  4283649346: "cifs",
  4266872130: "smb3",
  12805120: "ceph",
  198183888: "lustre",
  1196443219: "gpfs",
  18225520: "gfs2",
  1952539503: "ocfs2",
  1397113167: "afs",
  1799439955: "afs",
  1937076805: "coda",
  428016422: "fhgfs",
  2866260714: "panfs",
  16914839: "9p",
};

const FUSE = 0x65735546;

/**
 * @param dir a directory that exists
 * @throws {LockFileError} when it cannot be opened
 */
export function fileSystemOf(dir: string): FileSystem {
  const fd = open(dir, O.RDONLY | O.CLOEXEC | O.NONBLOCK);
  if (fd < 0) throw cannotOpen(dir, -fd);
  const bytes = new Uint8Array(4096);
  const name = linux || process.arch === "arm64" ? "fstatfs" : "fstatfs$INODE64";
  const result = checked(
    libc({ [name]: { args: ["i32", "ptr"], returns: "i32" } })[name]!(fd, address(bytes)),
  );
  const mount = linux ? mountOf(fd) : undefined;
  close(fd);
  if (result < 0) return { type: "unknown" };
  const fields = new DataView(bytes.buffer);
  if (!linux) return darwin(bytes, fields);
  return classify(Number(fields.getBigUint64(0, true) & 0xffff_ffffn), mount);
}

/** `struct statfs` of macOS: the flags, of which MNT_LOCAL is one, and the type's name. */
function darwin(bytes: Uint8Array, fields: DataView): FileSystem {
  const MNT_LOCAL = 0x1000;
  const name = bytes.subarray(72, 72 + 16);
  const type = new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
  return { type, local: (fields.getUint32(64, true) & MNT_LOCAL) !== 0 };
}

/** A line of /proc/self/mountinfo. */
export interface Mount {
  type: string;
  /** Options of the file system. */
  options: string[];
}

/** The mount that an open file is in; undefined where there is no /proc. */
function mountOf(fd: number): Mount | undefined {
  const id = /^mnt_id:\s+(\d+)/m.exec(readText(`/proc/self/fdinfo/${fd}`) ?? "")?.[1];
  const lines = (readText("/proc/self/mountinfo") ?? "").split("\n");
  const [, rest] = lines.find((line) => line.startsWith(`${id} `))?.split(" - ") ?? [];
  const [type, , options] = rest?.split(" ") ?? [];
  return type === undefined ? undefined : { type, options: options?.split(",") ?? [] };
}

/**
 * @param magic `f_type` of statfs(2)
 * @param mount what mountinfo says of it, which is more exact
 */
export function classify(magic: number, mount?: Mount): FileSystem {
  const type = mount?.type ?? LOCAL[magic] ?? NETWORK[magic] ?? (magic === FUSE ? "fuse" : hex(magic));
  const options = mount?.options ?? [];
  if (magic in LOCAL) return { type, local: true };
  if (magic === FUSE) {
    const advice = "locks of FUSE file systems often hold on this host, or in this guest, only";
    return type === "fuseblk" ? { type, local: true } : { type, advice };
  }
  if (!(magic in NETWORK)) return { type };
  return { type, local: false, advice: adviceFor(type, options) };
}

function adviceFor(type: string, options: string[]): string | undefined {
  if (type.startsWith("nfs")) {
    if (options.some((option) => /^(nolock|local_lock=(flock|all))$/.test(option)))
      return "mounted so that locks hold on this host only (nolock or local_lock)";
    return "locks hold between hosts if its server keeps them, and may be lost when it is cut off";
  }
  if (/^(cifs|smb)/.test(type) && options.some((option) => /^(nobrl|nolock)$/.test(option)))
    return "mounted so that locks hold on this host only (nobrl)";
  if (type === "lustre" && !options.includes("flock"))
    return "mounted so that locks do not hold between hosts (mount it with -o flock)";
  if (type === "9p") return "locks often hold in this guest only";
  return undefined;
}

const hex = (magic: number) => `0x${magic.toString(16)}`;

function cannotOpen(dir: string, errno: number): LockFileError {
  const code = errorName(errno);
  return new LockFileError(`cannot open ${printable(dir)}: ${errorText(errno)}`, code, "open", dir);
}
