#!/usr/bin/env bash
# The first process of the node that cluster.sh starts, in namespaces of its own: mounts what the node must not share with the
# machine, makes its network, and starts Kubernetes' processes, each again when it ends.
#
#   node.sh BIN STATE NODE_ADDRESS SERVICE_RANGE "FOLDER ..."
set -euo pipefail
readonly bin=$1 state=$2 node_address=$3 service_range=$4
read -r -a folders <<<"$5"
readonly pki=$state/pki log=$state/log

mount_own() {
  local controller path sysctl
  mount --make-rshared /
  umount -R /sys
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  while read -r controller; do
    mkdir "/sys/fs/cgroup/$controller"
    if [[ $controller == systemd ]]; then
      mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    else
      mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    fi
  done < <(sed -nE 's/^[1-9][0-9]*:(name=)?([a-z,_]+):.*$/\2/p' /proc/self/cgroup)
  mount -t tmpfs -o mode=755 tmpfs /run
  mount --bind "$state/resolv.conf" "$(readlink -f /etc/resolv.conf)"
  for path in "${folders[@]}"; do
    mkdir -p "$state/files$path"
    mount --bind "$state/files$path" "$path"
  done
  # The kubelet sets these for the whole machine unless they have the value that it wants: it is shown that.
  mkdir -p "$state/sysctl"
  for sysctl in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    path=${sysctl%=*}
    printf '%s\n' "${sysctl#*=}" >"$state/sysctl/${path//\//.}"
    mount --bind "$state/sysctl/${path//\//.}" "/proc/sys/$path"
  done
}

make_network() {
  ip link set lo up
  ip link add node0 type veth peer name node1
  ip address add "$node_address/24" dev node0
  ip link set node0 up
  ip link set node1 up
  # Addresses of services need a route before kube-proxy's rules turn them into pods'.
  ip route add default dev node0
  printf '1\n' >/proc/sys/net/ipv4/ip_forward
  printf '1\n' >/proc/sys/net/bridge/bridge-nf-call-iptables
}

# run NAME COMMAND...: in the background, started again when it ends.
run() {
  local -r name=$1
  shift
  (
    while true; do
      "$@" || true
      printf 'node: %s ended and is started again\n' "$name"
      sleep 1
    done
  ) >>"$log/$name.log" 2>&1 &
}

run_api() {
  run apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$node_address" \
    --service-cluster-ip-range "$service_range" --client-ca-file "$pki/ca.crt" \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --kubelet-preferred-address-types InternalIP --kubelet-client-certificate "$pki/admin.crt" \
    --kubelet-client-key "$pki/admin.key" --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/service-account.key" --service-account-signing-key-file "$pki/service-account.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged
}

hostname node
mount_own
make_network
export PATH=$bin:$PATH
run etcd etcd --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 \
  --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
run containerd containerd --config "$state/containerd.toml"
run_api
until kubectl --kubeconfig "$state/admin.kubeconfig" get --raw /readyz >/dev/null 2>&1; do sleep 0.3; done
run controller-manager kube-controller-manager --kubeconfig "$state/controller-manager.kubeconfig" \
  --root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/service-account.key" \
  --use-service-account-credentials --leader-elect=false
run scheduler kube-scheduler --kubeconfig "$state/scheduler.kubeconfig" --leader-elect=false
run kubelet kubelet --config "$state/kubelet.yaml" --kubeconfig "$state/kubelet.kubeconfig" \
  --hostname-override node --node-ip "$node_address"
run proxy kube-proxy --config "$state/proxy.yaml"
until kubectl --kubeconfig "$state/admin.kubeconfig" get node node >/dev/null 2>&1; do sleep 0.3; done
run network-policy kube-network-policy --kubeconfig "$state/network-policy.kubeconfig" --node node \
  --service-cluster-ip-range "$service_range"
wait
