/**
 * Makes `exclusive-<version>-<target>.deb` and `.rpm` for Linux with glibc, and `exclusive.rb`, the formula for Homebrew, all
 * of one description. They install no `flock`: wherever these formats are used, util-linux has it.
 */
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { description, homepage, version } from "../package.json";
import { TARGETS, type Target, type TargetName } from "./targets.ts";
import { layOut, setDates, sourceDate, tool } from "./tree.ts";

const SUMMARY = "run a command under a named lock, so it never runs twice at the same time";
/** `1.0.0~rc.1` is older than `1.0.0`, to dpkg and rpm. */
const PACKAGE_VERSION = version.replace("-", "~");
const RELEASE = 1;
const FORMULA_TARGETS = ["macos-arm64", "macos-x64", "linux-arm64", "linux-x64"] as const;

/**
 * @param out the directory that has the binaries, and for the formula the archives
 * @param level of gzip(1)
 */
export async function buildPackages(out: string, targets: TargetName[], level = 6): Promise<void> {
  for (const target of targets) {
    const { os, libc, cpu }: Target["npm"] = TARGETS[target].npm;
    if (os !== "linux" || libc !== "glibc") continue;
    const stage = `${out}/stage/${target}`;
    await buildDeb({ out, target, stage, level, architecture: cpu === "x64" ? "amd64" : "arm64" });
    await buildRpm({ out, target, stage, level, architecture: cpu === "x64" ? "x86_64" : "aarch64" });
  }
  await rm(`${out}/stage`, { recursive: true, force: true });
  if (FORMULA_TARGETS.every((target) => existsSync(archive(out, target)))) await writeFormula(out);
}

/** One package to make, in a directory for its tree. */
interface PackageOrder {
  out: string;
  target: TargetName;
  stage: string;
  /** As the format calls it. */
  architecture: string;
  /** Of gzip(1). */
  level: number;
}

const packageFile = (out: string, target: TargetName, format: string) =>
  `${out}/exclusive-${version}-${target}.${format}`;

const archive = (out: string, target: TargetName) => packageFile(out, target, "tar.gz");

/** The tree of both formats. */
async function layOutPackage(out: string, target: TargetName, stage: string): Promise<void> {
  await rm(stage, { recursive: true, force: true });
  await layOut(out, target, `${stage}/usr`);
  tool(["gzip", "-n", "-9", `${stage}/usr/share/man/man1/exclusive.1`]);
  await move(stage, "usr/share/doc/exclusive/LICENSE", "usr/share/doc/exclusive/copyright");
  await Bun.write(`${stage}/usr/lib/tmpfiles.d/exclusive.conf`, Bun.file("build/tmpfiles.conf"));
}

async function move(stage: string, from: string, to: string): Promise<void> {
  await mkdir(dirname(`${stage}/${to}`), { recursive: true });
  await rename(`${stage}/${from}`, `${stage}/${to}`);
}

async function buildDeb({ out, target, stage, architecture, level }: PackageOrder): Promise<void> {
  await layOutPackage(out, target, stage);
  await move(stage, "usr/share/zsh/site-functions/_exclusive", "usr/share/zsh/vendor-completions/_exclusive");
  await rm(`${stage}/usr/share/zsh/site-functions`, { recursive: true });
  const kilobytes = Math.ceil(Bun.file(`${stage}/usr/bin/exclusive`).size / 1024);
  await Bun.write(
    `${stage}/DEBIAN/control`,
    `Package: exclusive
Version: ${PACKAGE_VERSION}-${RELEASE}
Architecture: ${architecture}
Maintainer: exclusiveprocess <${homepage}>
Installed-Size: ${kilobytes}
Depends: libc6
Section: utils
Priority: optional
Homepage: ${homepage}
Description: ${SUMMARY}
 ${description}
`,
  );
  await setDates(stage);
  const deb = packageFile(out, target, "deb");
  tool(["dpkg-deb", "--root-owner-group", "-Zgzip", `-z${level}`, "--build", stage, deb], {
    env: { SOURCE_DATE_EPOCH: String(sourceDate()) },
  });
}

async function buildRpm({ out, target, stage, architecture, level }: PackageOrder): Promise<void> {
  await layOutPackage(out, target, stage);
  await setDates(stage);
  const top = `${stage}.rpmbuild`;
  await Bun.write(
    `${top}/exclusive.spec`,
    `Name: exclusive
Version: ${PACKAGE_VERSION}
Release: ${RELEASE}
Summary: ${SUMMARY}
License: MIT
URL: ${homepage}
Requires: glibc
AutoReqProv: no
# Nothing is to be made of the binary: neither stripped nor split.
%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%description
${description}
%install
mkdir -p %{buildroot}
cp -a ${absolute(stage)}/. %{buildroot}
%files
%defattr(-,root,root)
/usr/bin/exclusive
/usr/lib/tmpfiles.d/exclusive.conf
/usr/share/bash-completion/completions/exclusive
/usr/share/doc/exclusive
/usr/share/fish/vendor_completions.d/exclusive.fish
/usr/share/man/man1/exclusive.1.gz
/usr/share/zsh/site-functions/_exclusive
`,
  );
  const settings = {
    _topdir: absolute(top),
    _rpmdir: absolute(out),
    _rpmfilename: `exclusive-${version}-${target}.rpm`,
    _binary_payload: `w${level}.gzdio`,
    _buildhost: "localhost",
    use_source_date_epoch_as_buildtime: "1",
    clamp_mtime_to_source_date_epoch: "1",
  };
  const defines = Object.entries(settings).flatMap(([name, value]) => ["--define", `${name} ${value}`]);
  tool(
    ["rpmbuild", "-bb", "--quiet", "--target", `${architecture}-linux`, ...defines, `${top}/exclusive.spec`],
    {
      env: { SOURCE_DATE_EPOCH: String(sourceDate()) },
    },
  );
}

const absolute = (path: string) => Bun.pathToFileURL(path).pathname;

async function writeFormula(out: string): Promise<void> {
  const releases = `${homepage.split("#")[0]}/releases/download/v${version}`;
  const source = async (target: TargetName) => {
    const sum = new Bun.CryptoHasher("sha256").update(await Bun.file(archive(out, target)).bytes());
    const file = archive("", target).slice(1);
    return `      url "${releases}/${file}"\n      sha256 "${sum.digest("hex")}"`;
  };
  const [macArm, macX64, linuxArm, linuxX64] = await Promise.all(FORMULA_TARGETS.map(source));
  await Bun.write(
    `${out}/exclusive.rb`,
    `class Exclusive < Formula
  desc "${SUMMARY[0]!.toUpperCase()}${SUMMARY.slice(1)}"
  homepage "${homepage}"
  version "${version}"
  license "MIT"

  on_macos do
    on_arm do
${macArm}
    end
    on_intel do
${macX64}
    end
  end

  on_linux do
    on_arm do
${linuxArm}
    end
    on_intel do
${linuxX64}
    end
  end

  def install
    bin.install "bin/exclusive"
    man1.install "share/man/man1/exclusive.1"
    bash_completion.install "share/bash-completion/completions/exclusive"
    zsh_completion.install "share/zsh/site-functions/_exclusive"
    fish_completion.install "share/fish/vendor_completions.d/exclusive.fish"
  end

  test do
    assert_equal "locked\\n", shell_output("#{bin}/exclusive run test -- echo locked")
  end
end
`,
  );
}
