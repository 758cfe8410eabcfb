#!/usr/bin/env bash
# The Debian packages in build/packages, and the Python wheel, as users get them: installed in a bare Debian 12, used, purged.
# systemd runs in it, so that the service is started as on a machine. With packages for arm64 there, their server runs under
# qemu and must answer with the same bits. `make test-packages`.
set -euo pipefail
# shellcheck source=scripts/bare-root.sh
source "$(dirname "$0")/../../scripts/bare-root.sh"

readonly FIVE=/root/attend/tests/data/golden/notebook_5x64.safetensors
readonly CONF=/etc/attend/attend-server.conf

fail() {
  printf 'packages_test: %s\n' "$*" >&2
  exit 1
}

step() {
  printf '==== %s (%d s)\n' "$1" "$SECONDS"
  "$1"
}

# What has attend in its name, without what this machine shares with the root: others may write its caches meanwhile.
named_attend() {
  inside 'find / -xdev \( -path /root -o -path /proc -o -path /var/cache/attend-tidy -o -path /var/cache/ccache \) -prune -o -print \
    | grep -iE "attend" | sort' || true
}

install_packages() {
  mkdir -p "$root/root/packages"
  cp build/packages/*.deb "$root/root/packages/"
  inside 'apt-get update -qq'
  named_attend >"$work/before"
  inside 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /root/packages/attend-server_*_amd64.deb \
    /root/packages/attend_*_amd64.deb' >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; fail 'not installed'; }
  inside 'getent passwd attend' >/dev/null || fail 'there is no user attend'
  [[ $(inside "dpkg-query -W -f '\${Conffiles}' attend-server") == *"$CONF"* ]] || fail "$CONF is no conffile"
  inside "attend-server --config $CONF --check-config" >/dev/null
}

check_unit() {
  # In hundredths of what systemd-analyze prints: at most 2.0.
  inside 'systemd-analyze security --offline=true --threshold=20 --no-pager attend-server.service' | tail -n 1
  inside 'systemd-analyze verify attend-server.service' || fail 'systemd-analyze finds fault with the unit'
  [[ -L $root/etc/systemd/system/multi-user.target.wants/attend-server.service ]] || fail 'the service is not enabled'
}

# systemd as process 1 of the root, with processes, control groups and a network of its own: the unit runs as on a machine,
# with all that confines it. Leaves $init, the process outside.
boot() {
  # shellcheck disable=SC2016
  unshare --mount --propagation private --pid --uts --ipc --net --fork --kill-child bash -euo pipefail -c '
    mount --bind "$0" "$0" && cd "$0"
    mount -t proc proc proc && mount -t tmpfs tmpfs run && mount -t sysfs sysfs sys
    if ! mount -t cgroup2 cgroup2 sys/fs/cgroup 2>/dev/null; then
      mount -t tmpfs tmpfs sys/fs/cgroup && mkdir sys/fs/cgroup/systemd
      mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    fi
    pivot_root . mnt && umount -l /mnt
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system' "$root" >"$work/boot.log" 2>&1 &
  booted=$!
  local tries
  for ((tries = 0; tries < 300; ++tries)); do
    sleep 0.2
    init=$(pgrep -P "$booted" || true)
    if [[ -n $init && $(within 'systemctl is-active attend-server' 2>/dev/null || true) == active ]]; then return; fi
  done
  cat "$work/boot.log" >&2
  within 'systemctl status attend-server --no-pager; journalctl -u attend-server --no-pager | tail -n 20' >&2
  fail 'the service does not start'
}

# A command line in the booted system.
within() {
  nsenter --all --target "$init" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 bash -euo pipefail -c "$1" </dev/null
}

notebook() {
  printf 'attend compute --timeout 60 --input %s:x --layer %s --weights --output /root/%s --endpoints 127.0.0.1:%s' \
    "$FIVE" "$FIVE" "$1" "$2"
}

serve_the_notebook() {
  within "attend layers upload notebook $FIVE" >/dev/null
  within "$(notebook amd64.safetensors 50051)" >/dev/null
  within 'systemctl reload attend-server && systemctl restart attend-server && attend layers get notebook' >/dev/null
  [[ $(within 'stat -c %U:%a /var/lib/attend') == attend:750 ]] || fail '/var/lib/attend is open'
}

# As docs/packages.md has it: others connect to a Unix socket when the drop-in says so and they are in the group.
serve_on_a_unix_socket() {
  local drop_in=/etc/systemd/system/attend-server.service.d/socket.conf
  local call='attend health --timeout 5 --endpoints unix:/run/attend/attend.sock'
  local member='setpriv --reuid=65534 --regid=65534 --groups=attend' stranger='setpriv --reuid=65534 --regid=65534 --clear-groups'
  within "cp -p $CONF /root/conf && sed -i 's|^listen = .*|listen = [\"127.0.0.1:50051\", \"unix:/run/attend/attend.sock\"]|' $CONF"
  within "systemctl restart attend-server && $call" >/dev/null
  ! within "$member $call" >/dev/null 2>&1 || fail 'a Unix socket is open to the group without the drop-in'
  within "mkdir -p ${drop_in%/*} && printf '[Service]\nUMask=0007\n' >$drop_in && systemctl daemon-reload && systemctl restart attend-server"
  within "$member $call" >/dev/null || fail 'a member of the group cannot connect'
  ! within "$stranger $call" >/dev/null 2>&1 || fail 'a Unix socket is open to everybody'
  [[ $(within 'attend layers upload umask '"$FIVE"' >/dev/null && stat -c %a /var/lib/attend/layers') == 700 ]] || fail 'layers are open'
  within "attend layers delete umask >/dev/null && rm -r ${drop_in%/*} && mv /root/conf $CONF"
  within 'systemctl daemon-reload && systemctl restart attend-server'
}

build_with_the_library() {
  inside 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /root/packages/libattend-client-dev_*_amd64.deb \
    g++ cmake make' >/dev/null 2>&1
  /usr/bin/python3 -B tests/integration/readme_blocks.py files docs/clients/cpp.md "$root/root/cpp"
  inside 'cmake -S /root/cpp -B /root/cpp/build && cmake --build /root/cpp/build --target first' >/dev/null
  [[ $(within '/root/cpp/build/first localhost:50051') == *' 0.6698 0.3302 0.3302 0.6698' ]] || fail 'the library does not work'
}

# Six lines of Python, with nothing but the wheel and what pip brings.
use_the_wheel() {
  cp "$(scripts/python-package.sh)" "$root/root/"
  inside 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv' >/dev/null 2>&1
  inside 'python3 -m venv /root/venv && /root/venv/bin/pip install --quiet --disable-pip-version-check /root/attend_client-*.whl'
  /usr/bin/python3 -B tests/python/notebook_program.py write localhost:50051 "$root/root/notebook"
  within 'cd /root/notebook && /root/venv/bin/python program.py'
  /usr/bin/python3 -B tests/python/notebook_program.py check "$root/root/notebook"
}

purge() {
  [[ $(within 'systemctl stop attend-server && systemctl show --property Result --value attend-server') == success ]] ||
    fail 'the service does not end well'
  within 'systemctl start attend-server'
  within 'DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq attend-server attend libattend-client-dev' >/dev/null 2>&1
  ! within 'systemctl is-active --quiet attend-server' || fail 'the service is still there'
  kill -KILL "$init"
  wait "$booted" 2>/dev/null || true
  ! inside 'getent passwd attend || getent group attend' || fail 'the user attend is left'
  named_attend >"$work/after"
  diff "$work/before" "$work/after" || fail 'purging leaves files'
}

lint_packages() {
  inside 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends lintian' >/dev/null 2>&1
  # bogus-mail-host: who publishes the packages says who answers for them.
  inside 'lintian --no-cfg --allow-root --fail-on error,warning --suppress-tags bogus-mail-host /root/packages/*_amd64.deb'
}

# The arm64 server, under qemu and without systemd, for the amd64 command. It keeps no layers: Debian 12's qemu has no openat2.
compare_with_arm64() {
  compgen -G 'build/packages/*_arm64.deb' >/dev/null || { printf 'no packages for arm64 in build/packages\n'; return; }
  inside 'dpkg --add-architecture arm64 && apt-get update -qq'
  inside 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user /root/packages/attend-server_*_arm64.deb \
    /root/packages/attend_*_amd64.deb' >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; fail 'arm64: not installed'; }
  inside 'install -d -o attend -g attend /run/attend /var/lib/attend'
  enter "exec setpriv --reuid=attend --regid=attend --clear-groups qemu-aarch64 -cpu neoverse-n1 /usr/bin/attend-server \
    --config $CONF --data-dir '' --listen 127.0.0.1:0 --port-file /run/attend/port --drain-wait 0s" >"$work/server.log" 2>&1 &
  local server=$! tries
  for ((tries = 0; tries < 600; ++tries)); do
    [[ ! -s $root/run/attend/port ]] || break
    kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; fail 'arm64: the server ended'; }
    sleep 0.1
  done
  inside "$(notebook arm64.safetensors "$(head -n 1 "$root/run/attend/port")")"
  kill -TERM "$server"
  wait "$server" || fail "arm64: the server ended with $?"
  cmp "$root/root/amd64.safetensors" "$root/root/arm64.safetensors" || fail 'arm64 computes other bits'
}

# Also after a step that failed: what runs in the root keeps its files in use.
clean_up() {
  local running
  running=$(jobs -p)
  # shellcheck disable=SC2086  # One word for each process.
  [[ -z $running ]] || kill -KILL $running 2>/dev/null || true  # With unshare goes the whole booted system.
  wait
  remove_bare_root
  rm -rf "$work"
}

work=$(mktemp -d)
trap clean_up EXIT
make_bare_root
for each in install_packages check_unit boot serve_the_notebook serve_on_a_unix_socket build_with_the_library use_the_wheel purge lint_packages compare_with_arm64; do
  step "$each"
done
printf 'packages_test: passed (%d s)\n' "$SECONDS"
