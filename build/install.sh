#!/bin/sh
# Installs exclusive from an archive of a release, after checking its sum: see --help.
set -eu

version=@VERSION@
releases=https://github.com/JoshData/exclusiveprocess/releases/download

usage() {
  cat <<END
Usage: sh install.sh [--prefix DIR] [--from URL|DIR] [--version VERSION] [--target TARGET]
       sh install.sh --uninstall [--prefix DIR]

Installs the command exclusive, its manual page and its completions below DIR: /usr/local for root, else ~/.local.

  --prefix DIR       install below this directory
  --from URL|DIR     take the archive and SHA256SUMS from here: http(s)://, file://, or a directory
  --version VERSION  instead of $version
  --target TARGET    instead of what this machine needs: linux-x64, linux-x64-musl, linux-arm64, linux-arm64-musl,
                     macos-x64, macos-arm64
  --uninstall        remove what this script installed
END
}

files='bin/exclusive
share/man/man1/exclusive.1
share/bash-completion/completions/exclusive
share/zsh/site-functions/_exclusive
share/fish/vendor_completions.d/exclusive.fish
share/doc/exclusive/LICENSE'

# Fails with a status of sysexits.h(3head).
fail() {
  status=$1
  shift
  printf 'install.sh: %s\n' "$*" >&2
  exit "$status"
}

main() {
  umask 022
  prefix='' from='' target='' uninstall=''
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) usage && exit 0 ;;
      --uninstall) uninstall=yes ;;
      --prefix | --from | --version | --target)
        [ -n "${2-}" ] || fail 64 "$1 needs a value"
        case $1 in
          --prefix) prefix=$2 ;;
          --from) from=$2 ;;
          --version) version=$2 ;;
          --target) target=$2 ;;
        esac
        shift
        ;;
      *) fail 64 "unknown option $1 (see --help)" ;;
    esac
    shift
  done
  if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=$HOME/.local; fi
  fi
  case $prefix in
    /*) ;;
    *) prefix=$PWD/$prefix ;;
  esac
  prefix=${prefix%/}
  if [ -n "$uninstall" ]; then uninstall; else install; fi
}

uninstall() {
  printf '%s\n' "$files" | while IFS= read -r file; do
    rm -f "$prefix/$file" || fail 73 "cannot remove $prefix/$file"
  done
  rmdir "$prefix/share/doc/exclusive" 2>/dev/null || :
  echo "exclusive is removed from $prefix"
}

install() {
  [ "$version" != "@""VERSION@" ] || fail 64 "--version is missing: this is no script of a release"
  [ -n "$target" ] || target=$(this_target) || exit
  from=${from:-$releases/v$version}
  name=exclusive-$version-$target
  work=$(mktemp -d) || fail 73 "no temporary directory"
  made='' done=''
  trap clean EXIT
  trap 'exit 1' HUP INT TERM
  fetch SHA256SUMS
  fetch "$name.tar.gz"
  check "$name.tar.gz"
  (cd "$work" && tar -xzf "$name.tar.gz") || fail 65 "$name.tar.gz cannot be unpacked"
  # First everything beside its place, then all of it into place: a failure leaves what was there before.
  for file in $files; do
    make_directory "$prefix/${file%/*}" || fail 73 "cannot make $prefix/${file%/*}"
    cp "$work/$name/$file" "$prefix/$file.new" || fail 73 "cannot write $prefix/$file"
  done
  "$prefix/bin/exclusive.new" --version >"$work/version" || fail 71 "the binary for $target does not run here$(advice)"
  for file in $files; do mv -f "$prefix/$file.new" "$prefix/$file" || fail 73 "cannot write $prefix/$file"; done
  done=yes
  echo "$(cat "$work/version") is installed as $prefix/bin/exclusive"
  case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) echo "$prefix/bin is not in PATH" ;;
  esac
  echo "to remove it: sh install.sh --uninstall --prefix '$prefix'"
}

# The release's name for this machine. Where both loaders are, the second one is a compatibility layer.
this_target() {
  machine=$(uname -sm)
  glibc='' musl=''
  case $machine in
    'Linux x86_64') cpu=x64 glibc=/lib64/ld-linux-x86-64.so.2 musl=/lib/ld-musl-x86_64.so.1 ;;
    'Linux aarch64') cpu=arm64 glibc=/lib/ld-linux-aarch64.so.1 musl=/lib/ld-musl-aarch64.so.1 ;;
    'Darwin x86_64') echo macos-x64 && return ;;
    'Darwin arm64') echo macos-arm64 && return ;;
    *) fail 69 "there is no binary for $machine" ;;
  esac
  if [ -e "$glibc" ] && [ ! -e /etc/alpine-release ]; then
    echo "linux-$cpu"
  elif [ -e "$musl" ]; then
    echo "linux-$cpu-musl"
  else
    fail 69 "this system has neither $glibc nor $musl (--target names a binary)"
  fi
}

advice() {
  case $target in *-musl) echo ': it needs libstdc++ (apk add libstdc++)' ;; esac
}

fetch() {
  case $from in
    file://*) cp "${from#file://}/$1" "$work/$1" ;;
    http://* | https://*)
      if command -v curl >/dev/null; then
        curl -fsSL "$from/$1" -o "$work/$1"
      elif command -v wget >/dev/null; then
        wget -q -O "$work/$1" "$from/$1"
      else
        fail 69 'neither curl nor wget is installed'
      fi
      ;;
    *) cp "$from/$1" "$work/$1" ;;
  esac || fail 69 "cannot get $from/$1"
}

check() {
  expected=$(awk -v file="$1" '$2 == file { print $1 }' "$work/SHA256SUMS")
  [ -n "$expected" ] || fail 65 "SHA256SUMS of $from does not name $1"
  if command -v sha256sum >/dev/null; then
    actual=$(sha256sum <"$work/$1")
  elif command -v shasum >/dev/null; then
    actual=$(shasum -a 256 <"$work/$1")
  else
    actual=$(openssl dgst -sha256 -r <"$work/$1") || fail 69 'no sha256sum, shasum or openssl is installed'
  fi
  actual=${actual%% *}
  [ "$actual" = "$expected" ] || fail 65 "the sum of $1 is wrong: $actual instead of $expected; nothing was installed"
}

# As mkdir -p; remembers what it made.
make_directory() {
  [ -d "$1" ] && return
  case ${1%/*} in
    '') ;;
    *) make_directory "${1%/*}" || return ;;
  esac
  mkdir "$1" || return
  made="$1
$made"
}

clean() {
  rm -rf "$work"
  [ -z "$done" ] || return 0
  for file in $files; do rm -f "$prefix/$file.new"; done
  printf '%s' "$made" | while IFS= read -r directory; do rmdir "$directory" 2>/dev/null || :; done
}

main "$@" # at the end: a script that was cut off on its way does nothing
