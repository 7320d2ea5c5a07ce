package inspect

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
)

// Secret is one that the image holds; its value is not part of it.
type Secret struct {
	Name string `json:"name"`
	Path string `json:"path"` // of the file that has it on the node
	// Reach is what its holder can do.
	Reach   string `json:"reach"`
	Expires Expiry `json:"expires"`
	Expired bool   `json:"expired,omitempty"`
}

// What a key opens that several files have.
const (
	allData     = "reads and writes all data of the cluster in etcd, its Secrets too, past the API server"
	anyUserHere = "lets the holder be any user towards the API server, an administrator too"
)

// keys are the private keys of a Kubernetes node, by their place in the folder of
// certificates. The certificate of the same name says until when they are of use.
var keys = map[string]struct{ name, reach string }{
	"ca.key":                       {"key of the cluster's CA", "signs certificates of any user and any node: " + anyUserHere},
	"front-proxy-ca.key":           {"key of the front proxy's CA", "signs certificates of authenticating proxies: " + anyUserHere},
	"etcd/ca.key":                  {"key of etcd's CA", "signs certificates of etcd's members and clients: " + allData},
	"sa.key":                       {"key of service accounts", "signs tokens: lets the holder be any service account of the cluster"},
	"apiserver.key":                {"key of the API server", "lets the holder pass for the API server"},
	"apiserver-kubelet-client.key": {"key of the API server for kubelets", "runs commands in any pod of any node"},
	"apiserver-etcd-client.key":    {"key of the API server for etcd", allData},
	"front-proxy-client.key":       {"key of the front proxy", anyUserHere},
	"etcd/server.key":              {"key of the etcd server", "lets the holder pass for this node's etcd"},
	"etcd/peer.key":                {"key of the etcd member", "takes part in etcd: " + allData},
	"etcd/healthcheck-client.key":  {"key of etcd's health check", allData},
}

// kinds are the secrets that are recognised by the path, or by what the file says.
var kinds = []struct {
	path, text  *regexp.Regexp // both match; nil matches everything
	name, reach string
	never       bool
}{
	{path: regexp.MustCompile(`^/etc/ssh/ssh_host_.*_key$`), name: "SSH host key", reach: "lets the holder pass for this node towards SSH clients", never: true},
	{path: regexp.MustCompile(`^/(etc/wpa_supplicant|var/lib/iwd|etc/iwd|etc/NetworkManager/system-connections)/`), text: regexp.MustCompile(`(?i)psk|passphrase|password`), name: "Wi-Fi password", reach: "joins the wireless network", never: true},
	{path: regexp.MustCompile(`\.netdev$`), text: regexp.MustCompile(`(?m)^\s*(PrivateKey|PresharedKey)\s*=`), name: "WireGuard key", reach: "lets the holder be this node in the WireGuard network", never: true},
	{text: regexp.MustCompile(`(?m)^\s*"?kind"?:\s*"?EncryptionConfiguration`), name: "encryption key of the API server", reach: "decrypts Secrets that are stored encrypted in etcd", never: true},
	{text: regexp.MustCompile(`"auths"\s*:`), name: "registry credentials", reach: "pulls images, and pushes if the account may, at the registries in the file"},
	{text: regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`), name: "private key", reach: "what its certificate or its public key stands for"},
}

// secrets lists all secrets of the config, by path.
func (c *config) secrets(now time.Time) []Secret {
	var out []Secret
	plan, planErr := c.plan()
	if planErr == nil {
		// When the token of a cluster ends that others have made, that cluster knows.
		known := !plan.Cluster.NotBefore.IsZero()
		for _, t := range plan.Tokens {
			out = append(out, Secret{
				Name: "bootstrap token " + t.ID, Path: bootplan.Path, Expires: Expiry{At: t.Expires, Never: known && t.Expires.IsZero()},
				Reach: "lets any machine join as a worker, under any node name that is free",
			})
		}
		for _, field := range filled(reflect.ValueOf(plan), "") {
			switch {
			case field == "discovery.kubeconfig":
				if f, err := discoveryfile.Parse(plan.Discovery.Kubeconfig); err != nil || f.Credentials {
					out = append(out, Secret{Name: "credentials of the discovery kubeconfig", Path: bootplan.Path, Reach: "lets any machine join, as far as their user may"})
				}
			case !strings.HasPrefix(field, "tokens["):
				out = append(out, Secret{Name: field + " of the boot plan", Path: bootplan.Path, Reach: "what the boot plan has it for"})
			}
		}
	}
	// The plan cannot be read for the folder if it is damaged: then it is kubeadm's.
	certs := cmp.Or(plan.Cluster.Kubeadm.CertificatesDir, kubeadmapi.DefaultCertificatesDir)
	for p, f := range c.files {
		// The keys that open the node are among its logins.
		if p == bootplan.Path && planErr == nil || f.data.IsZero() || strings.HasSuffix(p, sshKeys) {
			continue
		}
		out = append(out, c.ofFile(certs, p, f)...)
	}
	out = append(out, c.accounts()...)
	for _, l := range c.Storage.Luks {
		if l.KeyFile.Source != nil {
			out = append(out, Secret{Name: "key of the encrypted disk " + l.Name, Path: l.Name, Reach: "opens the disk", Expires: Expiry{Never: true}})
		}
	}
	for i, s := range out {
		out[i].Expired = !s.Expires.At.IsZero() && s.Expires.At.Before(now)
	}
	slices.SortFunc(out, func(a, b Secret) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Name, b.Name)) })
	return out
}

// filled lists the secrets in a value by their paths, so that none is missed that a
// boot plan of another version has.
func filled(v reflect.Value, path string) (out []string) {
	if s, ok := v.Interface().(secret.Value); ok {
		if !s.IsZero() {
			out = append(out, path)
		}
		return out
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out = filled(v.Elem(), path)
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, filled(v.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				name := strings.ToLower(f.Name[:1]) + f.Name[1:]
				out = append(out, filled(v.Field(i), strings.TrimPrefix(path+"."+name, "."))...)
			}
		}
	}
	return out
}

// ofFile lists the secrets of a file. One that only its owner may read is one, even
// if nothing says what it is for.
func (c *config) ofFile(certs, p string, f file) []Secret {
	if rel, ok := strings.CutPrefix(p, certs+"/"); ok {
		if k, ok := keys[rel]; ok {
			e := c.certificateOf(p)
			if rel == "sa.key" {
				e = Expiry{Never: true} // it has no certificate
			}
			return []Secret{{Name: k.name, Path: p, Reach: k.reach, Expires: e}}
		}
		if strings.HasSuffix(p, ".pub") {
			return nil // kubeadm keeps sa.pub from others, too
		}
	}
	if s, ok := kubeconfig(p, f.data); ok {
		return s
	}
	text := f.data.RevealString()
	for _, k := range kinds {
		if k.path != nil && !k.path.MatchString(p) || k.text != nil && !k.text.MatchString(text) {
			continue
		}
		e := Expiry{Never: k.never}
		if !k.never {
			e = c.certificateOf(p)
		}
		return []Secret{{Name: k.name, Path: p, Reach: k.reach, Expires: e}}
	}
	if f.private() && !isCertificate(f.data) {
		return []Secret{{Name: "file for its owner alone", Path: p, Reach: "Kiln does not know: a snippet put it there"}}
	}
	return nil
}

// kubeconfig lists the credentials of a kubeconfig.
func kubeconfig(p string, data secret.Value) ([]Secret, bool) {
	if !strings.Contains(data.RevealString(), "current-context") {
		return nil, false
	}
	k, err := clientcmd.Load(data.Reveal())
	if err != nil {
		return nil, false
	}
	var out []Secret
	for _, name := range slices.Sorted(maps.Keys(k.AuthInfos)) {
		u := k.AuthInfos[name]
		s := Secret{Name: "kubeconfig of " + name, Path: p, Reach: "lets the holder be " + name + " towards the API server"}
		switch {
		case len(u.ClientKeyData) > 0:
			if cert := firstCertificate(u.ClientCertificateData); cert != nil {
				s.Expires.At = cert.NotAfter
				s.Reach = fmt.Sprintf("lets the holder be user %s towards the API server", cert.Subject.CommonName)
				if slices.Contains(cert.Subject.Organization, "system:masters") {
					s.Reach += ", who may do everything"
				}
			}
		case u.Token != "" || u.Password != "":
		default:
			continue // it names files, which are listed by themselves
		}
		out = append(out, s)
	}
	return out, len(out) > 0
}

// accounts lists password hashes.
func (c *config) accounts() []Secret {
	var out []Secret
	add := func(what, name, file string, hash *string) {
		// "*" and "!" at the beginning let nobody in, see shadow(5).
		if hash == nil || *hash == "" || strings.ContainsAny((*hash)[:1], "*!") {
			return
		}
		out = append(out, Secret{
			Name: "password hash of " + what + " " + name, Path: file, Expires: Expiry{Never: true},
			Reach: "logs in as " + name + ", once the password is guessed",
		})
	}
	for _, u := range c.Passwd.Users {
		add("user", u.Name, "/etc/shadow", u.PasswordHash)
	}
	for _, g := range c.Passwd.Groups {
		add("group", g.Name, "/etc/gshadow", g.PasswordHash)
	}
	return out
}

// certificateOf is the expiry of the certificate that belongs to a key: in the same
// file, or beside it.
func (c *config) certificateOf(key string) Expiry {
	base := strings.TrimSuffix(key, path.Ext(key))
	for _, p := range []string{key, base + ".crt", base + ".pem", base + ".cert"} {
		if cert := firstCertificate(c.files[p].data.Reveal()); cert != nil {
			return Expiry{At: cert.NotAfter}
		}
	}
	return Expiry{}
}

func isCertificate(v secret.Value) bool { return firstCertificate(v.Reveal()) != nil }

// firstCertificate returns the first certificate of a PEM file, nil if there is none.
func firstCertificate(b []byte) *x509.Certificate {
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				return cert
			}
		}
		b = rest
	}
}
