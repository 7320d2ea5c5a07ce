package kubeadmapi

import (
	"slices"
	"strings"
)

// checkNames are the names that ignorePreflightErrors knows, but for those that end
// with a path or a number: kubeadm's, and the last of firstboot's own.
var checkNames = []string{
	"IsPrivilegedUser", "NumCPU", "Mem", "KubernetesVersion", "Firewalld", "HTTPProxy", "HTTPProxyCIDR", "CRI", "ContainerRuntimeVersion",
	"Swap", "SystemVerification", "Hostname", "KubeletVersion", "Service-kubelet", "ExternalEtcdVersion", "ExternalEtcdClientCertificates", "ImagePull",
	"ControlPlaneVersion", "ControlPlaneEndpoint", "SharedCertificates", "Clock", "DiskSpace", "StorageHealth", "Entropy",
}

// checkKinds begin the names that end with a path or a number.
var checkKinds = []string{"Port-", "FileAvailable-", "FileExisting-", "FileContent-", "DirAvailable-"}

// CheckNames lists the preflight checks by their names.
func CheckNames() []string { return slices.Clone(checkNames) }

// KnownCheck reports whether a preflight check may have that name, in any case.
func KnownCheck(name string) bool {
	same := func(n string) bool { return strings.EqualFold(n, name) }
	begins := func(k string) bool { return len(name) > len(k) && strings.EqualFold(name[:len(k)], k) }
	return slices.ContainsFunc(checkNames, same) || slices.ContainsFunc(checkKinds, begins)
}
