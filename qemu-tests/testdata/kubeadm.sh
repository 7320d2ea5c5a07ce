#!/bin/sh
# What an administrator without Kiln does on a machine that has the container
# runtime, the kubelet and no network: images from an archive, kubeadm, a pod network.
set -eu
here=$(dirname "$0")
say() { echo "bench: $1 after $(cut -d' ' -f1 /proc/uptime) s"; }
say "begin"
ctr --namespace k8s.io images import "$here/images.tar"
say "images are imported"
"$here/kubeadm" init --config "$here/kubeadm.yaml" --skip-token-print
say "kubeadm init is done"
if [ -e "$here/10-flannel.conflist" ]; then # else the pod network brings its own
	mkdir -p /etc/cni/net.d
	cp "$here/10-flannel.conflist" /etc/cni/net.d/
fi
kubectl --kubeconfig /etc/kubernetes/admin.conf apply --server-side -f "$here/flannel.json"
say "the pod network is there"
mkdir -p /var/lib/kiln
touch /var/lib/kiln/firstboot.done
