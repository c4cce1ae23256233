/** Judges file systems: whether a directory is on one of this machine, and what to know of the others. */
import { type Mount, mountedFileSystem } from "../../os/mounts.ts";

/** A file system, as far as locks are concerned. */
export interface FileSystem {
  /** As mount(8) has it: `ext4`, `nfs4`, `fuse.sshfs`. */
  type: string;
  /** Is it on this machine alone? Undefined where that is not known. */
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
  const { magic, mount, type = "unknown", local } = mountedFileSystem(dir) ?? {};
  return magic === undefined ? { type, local } : classify(magic, mount);
}

/**
 * @param magic `f_type` of statfs(2)
 * @param mount its line in mountinfo, which is more exact
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
