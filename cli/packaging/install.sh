#!/bin/sh
# Installs relayctl with its completions and manual pages.
#
#   cli/packaging/install.sh RELAYCTL [PREFIX]
#
# RELAYCTL is the built program, PREFIX is /usr/local unless given; DESTDIR is
# put before it, as package builders expect. Completions and pages are written
# by the program itself, so they are always those of this program.
set -eu

program=${1:?which relayctl?}
prefix=${DESTDIR:-}${2:-/usr/local}

install -d "$prefix/bin" "$prefix/share/man/man1" \
    "$prefix/share/bash-completion/completions" "$prefix/share/zsh/site-functions" \
    "$prefix/share/fish/vendor_completions.d"
install -m 0755 "$program" "$prefix/bin/relayctl"
"$program" man "$prefix/share/man/man1"
"$program" completion bash > "$prefix/share/bash-completion/completions/relayctl"
"$program" completion zsh > "$prefix/share/zsh/site-functions/_relayctl"
"$program" completion fish > "$prefix/share/fish/vendor_completions.d/relayctl.fish"
