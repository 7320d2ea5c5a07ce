// Package pki makes and reads the identity material of a cluster: the three
// certificate authorities, the service-account key pair, the bootstrap token,
// leaf certificates and kubeconfigs. Names, lifetimes, key types and PEM types
// are those of kubeadm, so that kubeadm can check and renew what Kiln issued.
//
// imagegen makes an Authority once per cluster, offline (LoadOrCreate);
// firstboot issues the leaf certificates of its node from the certificate plan
// (Certificates, Kubeconfigs). Private keys travel as secret.Value.
package pki
