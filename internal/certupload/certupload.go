// Package certupload stores a cluster's CAs and keys, encrypted, in the cluster, where
// kubeadm join --control-plane --certificate-key finds them
// (cmd/kubeadm/app/phases/copycerts).
package certupload

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/tokens"
	"github.com/kiln-os/kiln/pki"
)

// TTL is how long the certificates stay in the cluster.
const TTL = 2 * time.Hour

const (
	secretName  = "kubeadm-certs"
	roleName    = "kubeadm:kubeadm-certs"
	description = "Proxy for managing TTL for the kubeadm-certs secret"
)

// keySize is that of AES-256.
const keySize = 32

// NewKey makes a certificate key.
func NewKey() (secret.Value, error) {
	var key [keySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return secret.Value{}, err
	}
	return secret.FromString(hex.EncodeToString(key[:])), nil
}

// ParseKey reads a certificate key. Its error does not quote it.
func ParseKey(key secret.Value) ([]byte, error) {
	out, err := hex.DecodeString(key.RevealString())
	if err != nil || len(out) != keySize {
		return nil, errors.New("a certificate key is 64 hexadecimal digits, as firstboot certs certificate-key prints them")
	}
	return out, nil
}

// files are what is stored, by its key in the Secret: a slash in a name is a dash.
func files(paths host.Paths, external *kubeadmapi.ExternalEtcd) map[string]string {
	out := map[string]string{}
	names := []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"}
	if external == nil {
		names = append(names, "etcd/ca.crt", "etcd/ca.key")
	} else {
		out["external-etcd-ca.crt"] = paths.At(external.CAFile)
		out["external-etcd.crt"] = paths.At(external.CertFile)
		out["external-etcd.key"] = paths.At(external.KeyFile)
	}
	for _, n := range names {
		out[strings.ReplaceAll(n, "/", "-")] = paths.PKI(n)
	}
	return out
}

// Upload encrypts the node's CAs and keys and stores them for TTL. The Secret belongs
// to a bootstrap token that nobody can use: when that expires, both are deleted.
func Upload(ctx context.Context, client kubernetes.Interface, paths host.Paths, external *kubeadmapi.ExternalEtcd, key secret.Value, now time.Time) error {
	raw, err := ParseKey(key)
	if err != nil {
		return err
	}
	data, err := encryptAll(paths, external, raw)
	if err != nil {
		return err
	}
	owner, err := ownerToken(ctx, client, now)
	if err != nil {
		return err
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: secretName,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Secret"))},
		},
		Data: data,
	}
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	if _, err = secrets.Create(ctx, s, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("the Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return allow(ctx, client)
}

func encryptAll(paths host.Paths, external *kubeadmapi.ExternalEtcd, key []byte) (map[string][]byte, error) {
	for _, ca := range []string{"ca.key", "front-proxy-ca.key"} {
		if _, err := os.Stat(paths.PKI(ca)); err != nil {
			return nil, fmt.Errorf("%w: where a CA's key is kept elsewhere, control planes are given their certificates by hand", err)
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for name, path := range files(paths, external) {
		plain, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			out[name] = []byte{} // an etcd without TLS has none
			continue
		}
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, gcm.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return nil, err
		}
		out[name] = gcm.Seal(nonce, nonce, plain, nil)
	}
	return out, nil
}

func ownerToken(ctx context.Context, client kubernetes.Interface, now time.Time) (*corev1.Secret, error) {
	t, err := pki.NewToken(now, TTL)
	if err != nil {
		return nil, err
	}
	proxy := tokens.Token{ID: t.ID, Secret: t.Secret, Expires: t.Expires, Description: description}
	if err := tokens.Create(ctx, client, proxy); err != nil {
		return nil, err
	}
	return client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, proxy.Object().Name, metav1.GetOptions{})
}

// allow lets joining machines read the Secret, which is of no use without the key.
func allow(ctx context.Context, client kubernetes.Interface) error {
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: roleName}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secretName},
	}}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: roleName},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: tokens.NodeGroup}},
	}
	rbac := client.RbacV1()
	_, err := rbac.Roles(meta.Namespace).Create(ctx, role, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = rbac.Roles(meta.Namespace).Update(ctx, role, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("the Role %s/%s: %w", meta.Namespace, meta.Name, err)
	}
	_, err = rbac.RoleBindings(meta.Namespace).Create(ctx, binding, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = rbac.RoleBindings(meta.Namespace).Update(ctx, binding, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("the RoleBinding %s/%s: %w", meta.Namespace, meta.Name, err)
	}
	return nil
}
