#!/usr/bin/env bash
# A real Kubernetes of one node, for tests: built from the Go module proxy and Debian's packages, without docker, systemd or a
# registry of images.
#
#   cluster.sh up                  build (cached), start, wait until the node is Ready
#   cluster.sh kubectl ARGUMENTS   kubectl against it
#   cluster.sh exec COMMAND...     a command of this machine in the node's network, from where pods and services can be called
#   cluster.sh load ARCHIVE        give the node an image: `buildah push NAME docker-archive:FILE:docker.io/library/NAME`
#   cluster.sh logs                the ends of all logs
#   cluster.sh down                end it and leave nothing behind but the binaries in build/kubernetes
#
# Needs root, cgroup v1 and the packages of `scripts/install-dependencies.sh kubernetes`. The node's processes run in mount,
# network, process, cgroup, IPC and host name namespaces of their own and end with the first of them; its network has no way out.
# node.sh beside this file is what runs inside. There is no DNS server, metrics server or storage provisioner.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
readonly here root
readonly bin=$root/build/kubernetes/bin
# Short, because the names of sockets are limited.
readonly state=${ATTEND_CLUSTER_STATE:-/var/tmp/attend-kubernetes}
readonly pki=$state/pki log=$state/log
readonly VERSION=1.35.4 # As in node/go.mod. The last minor release for Debian's containerd 1.6.
readonly NODE_ADDRESS=10.77.0.1 POD_RANGE=10.78.0.0/24 SERVICE_RANGE=10.96.0.0/16
readonly FOLDERS=(/var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers)

fail() {
  printf 'cluster: %s\n' "$*" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local -r end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "no $what in time; see cluster.sh logs"
    sleep 0.3
  done
}

build() {
  local key go name
  key=$(cat "$here"/node/go.* "$here"/node/*/*.go | sha256sum | cut -c1-16)
  [[ $(cat "$bin/key" 2>/dev/null) != "$key" ]] || return 0
  go=$("$root/scripts/find-go.sh")
  rm -rf "$bin"
  mkdir -p "$bin"
  (cd "$here/node" && CGO_ENABLED=0 nice "$go/go" build -p 2 -trimpath -o "$bin/" -ldflags "-s -w \
    -X k8s.io/component-base/version.gitVersion=v$VERSION -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$VERSION")" ./...)
  for name in etcd kube-{apiserver,controller-manager,scheduler,proxy,network-policy} kubelet kubectl; do
    ln -s cluster "$bin/$name"
  done
  printf '%s\n' "$key" >"$bin/key"
}

# certificate NAME SUBJECT [SUBJECT_ALTERNATIVE_NAMES]
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj "$2" \
    -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -keyout "$pki/$1.key" -out "$pki/$1.crt" \
    -addext basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature \
    -addext extendedKeyUsage=serverAuth,clientAuth ${3:+-addext "subjectAltName=$3"} 2>/dev/null
}

# kubeconfig NAME SUBJECT: a certificate for a user, and how it reaches the API.
kubeconfig() {
  certificate "$1" "$2"
  cat >"$state/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: node
clusters: [{name: node, cluster: {server: "https://$NODE_ADDRESS:6443", certificate-authority: $pki/ca.crt}}]
users: [{name: user, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
contexts: [{name: node, context: {cluster: node, user: user}}]
YAML
}

make_credentials() {
  mkdir -p "$pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=node-ca \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$pki/service-account.key" 2048 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:$NODE_ADDRESS,IP:${SERVICE_RANGE%.*}.1"
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig kubelet /O=system:nodes/CN=system:node:node
  kubeconfig controller-manager /CN=system:kube-controller-manager
  kubeconfig scheduler /CN=system:kube-scheduler
  kubeconfig proxy /CN=system:kube-proxy
  kubeconfig network-policy /CN=network-policy
}

write_configuration() {
  mkdir -p "$state/cni"
  cat >"$state/cni/10-bridge.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_RANGE"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE, and then makes nothing less likely to be killed than itself.
  cat >"$state/containerd.toml" <<TOML
version = 2
root = "$state/containerd"
state = "/run/containerd"
[grpc]
  address = "$state/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
TOML
  # The machine's disk and memory are everybody's, so that how full they are must not evict a pod here. Secrets are looked at
  # each syncFrequency, which is a minute elsewhere.
  cat >"$state/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$state/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
syncFrequency: 5s
configMapAndSecretChangeDetectionStrategy: Watch
oomScoreAdj: $(cat /proc/self/oom_score_adj)
resolvConf: $state/resolv.conf
evictionHard: {memory.available: 100Mi, nodefs.available: 500Mi, imagefs.available: 500Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
YAML
  cat >"$state/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $POD_RANGE
hostnameOverride: node
oomScoreAdj: $(cat /proc/self/oom_score_adj)
clientConnection: {kubeconfig: $state/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  : >"$state/resolv.conf"
}

# The cgroups of this process, one "CONTROLLER PATH" a line, of cgroup v1.
own_cgroups() {
  sed -nE 's/^[1-9][0-9]*:(name=)?([a-z,_]+):(.*)$/\2 \3/p' /proc/self/cgroup
}

# Moves this process into a cgroup below its own, so that the node sees no other cgroups.
enter_cgroups() {
  local controller path parent
  : >"$state/cgroups"
  while read -r controller path; do
    parent=/sys/fs/cgroup/$controller${path%/}
    mkdir -p "$parent/attend-kubernetes"
    if [[ $controller == cpuset ]]; then
      cat "$parent/cpuset.cpus" >"$parent/attend-kubernetes/cpuset.cpus"
      cat "$parent/cpuset.mems" >"$parent/attend-kubernetes/cpuset.mems"
    fi
    printf '%s\n' "$parent/attend-kubernetes" >>"$state/cgroups"
    printf '%s\n' "$BASHPID" >"$parent/attend-kubernetes/cgroup.procs"
  done < <(own_cgroups)
}

# The node's first process, if it is up.
node_process() {
  local outer
  outer=$(cat "$state/pid" 2>/dev/null) || return 1
  grep -qa node.sh "/proc/$outer/cmdline" 2>/dev/null || return 1
  pgrep -P "$outer"
}

in_network() {
  local process
  process=$(node_process) || fail 'not up'
  nsenter --target "$process" --net -- "$@"
}

in_cluster() {
  in_network env "KUBECONFIG=$state/admin.kubeconfig" "$bin/kubectl" "$@"
}

load() {
  ctr --address "$state/containerd.sock" --namespace k8s.io images import --digests=false "$1"
}

# An image of the one file `pause`, without a tool for images.
load_pause_image() {
  local work layer
  work=$(mktemp -d)
  tar -C "$bin" --owner 0 --group 0 -cf "$work/layer.tar" pause
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" >"$work/config.json"
  printf '[{"Config":"config.json","RepoTags":["localhost/pause:1"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$work/pause.tar" manifest.json config.json layer.tar
  load "$work/pause.tar" >/dev/null
  rm -rf "$work"
}

grant_network_policies() {
  in_cluster apply -f - >/dev/null <<'YAML'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: network-policy}
rules:
  - {apiGroups: [""], resources: [nodes, namespaces, pods, services, endpoints], verbs: [get, list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
  - {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: network-policy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: network-policy}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: network-policy}]
YAML
}

up() {
  ((UID == 0)) || fail 'needs root'
  [[ -n $(own_cgroups) ]] || fail 'needs cgroup v1'
  "$root/scripts/install-dependencies.sh" kubernetes
  build
  ! node_process >/dev/null || return 0
  down
  mkdir -p "$state" "$log" "${FOLDERS[@]}"
  make_credentials
  write_configuration
  (
    enter_cgroups
    exec setsid unshare --mount --net --pid --fork --kill-child --cgroup --ipc --uts --mount-proc \
      "$here/node.sh" "$bin" "$state" "$NODE_ADDRESS" "$SERVICE_RANGE" "${FOLDERS[*]}"
  ) >"$log/node.log" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$state/pid"
  disown
  wait_for 10 'first process' node_process
  wait_for 60 'containerd' ctr --address "$state/containerd.sock" version
  load_pause_image
  wait_for 180 'API' in_cluster get --raw /readyz
  grant_network_policies
  wait_for 120 'node' in_cluster get node node
  in_cluster wait --for condition=Ready --timeout 120s node/node >/dev/null
  wait_for 60 'service account' in_cluster get serviceaccount default
  wait_for 60 'network policies' in_network iptables -S KUBE-ROUTER-FORWARD
}

logs() {
  local file
  for file in "$log"/*.log; do
    printf '==== %s\n' "$file"
    tail -n "${1:-15}" "$file"
  done
}

has_ended() {
  ! kill -0 "$1" 2>/dev/null
}

remove_cgroup() {
  [[ -d $1 ]] || return 0
  find "$1" -depth -type d -exec rmdir {} +
}

down() {
  local outer cgroup path
  if node_process >/dev/null; then
    outer=$(cat "$state/pid")
    kill -KILL "$outer"
    wait_for 20 'end' has_ended "$outer"
  fi
  if [[ -f $state/cgroups ]]; then
    while read -r cgroup; do
      # The last process may still be leaving.
      wait_for 30 "end of $cgroup" remove_cgroup "$cgroup"
    done <"$state/cgroups"
  fi
  for path in "${FOLDERS[@]}"; do
    [[ ! -d $path ]] || rmdir --ignore-fail-on-non-empty "$path"
  done
  rm -rf --one-file-system "$state"
}

case ${1:-} in
  build | up | down | logs) "$@" ;;
  kubectl) shift && in_cluster "$@" ;;
  exec) shift && in_network "$@" ;;
  load) load "$2" ;;
  *) sed -n '2,15p' "$0" >&2 && exit 2 ;;
esac
